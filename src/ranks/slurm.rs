//! What SLURM says of the machines of a job.

use super::place::Environment;
use super::RanksError;

/// The lists of machines, the step's own first.
const LISTS: [&str; 3] = [
    "SLURM_STEP_NODELIST",
    "SLURM_NODELIST",
    "SLURM_JOB_NODELIST",
];

/// The first machine of the job, where rank 0 is; none where no list is set.
///
/// # Errors
///
/// A list that cannot be read.
pub(super) fn first_host(env: &Environment) -> Result<Option<String>, RanksError> {
    for name in LISTS {
        if let Some(found) = env.text(name) {
            return match first_of_list(&found) {
                Some(host) => Ok(Some(host)),
                None => Err(RanksError::Variable {
                    name,
                    found,
                    expected: "a list of machines such as n[5-9,12],m3".into(),
                }),
            };
        }
    }
    Ok(None)
}

/// `n5` of `n[5-9,12],m3`: in each bracket the first number, as wide as it is written.
fn first_of_list(list: &str) -> Option<String> {
    let mut host = String::new();
    let mut rest = list.trim();
    loop {
        let end = rest.find(['[', ',']).unwrap_or(rest.len());
        let (plain, more) = rest.split_at(end);
        host += plain;
        let Some(bracket) = more.strip_prefix('[') else {
            break;
        };
        let (inner, behind) = bracket.split_once(']')?;
        let first = inner.split([',', '-']).next()?;
        if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        host += first;
        rest = behind;
    }
    let usual = |c: char| c.is_alphanumeric() || "-._:".contains(c);
    (!host.is_empty() && host.chars().all(usual)).then_some(host)
}

/// A port that the tasks of a job agree on, and other jobs hardly have: 15000 and the last four
/// digits of the job's number, as PyTorch Lightning has it.
///
/// # Errors
///
/// A job without a number.
pub(super) fn port(env: &Environment) -> Result<u16, RanksError> {
    const NAME: &str = "SLURM_JOB_ID";
    let found = env.text(NAME).ok_or(RanksError::Missing {
        name: NAME,
        with: "SLURM_NTASKS",
        what: "the job's number, which the port follows from; MASTER_PORT can name one",
    })?;
    match found.parse::<u64>() {
        Ok(job) => Ok(15_000 + (job % 10_000) as u16),
        Err(_) => Err(RanksError::Variable {
            name: NAME,
            found,
            expected: "a job's number, which the port follows from (MASTER_PORT can name one)"
                .into(),
        }),
    }
}
