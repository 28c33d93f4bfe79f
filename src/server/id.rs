//! Names of jobs and pictures: random, so that nobody guesses another's, and looked up,
//! never joined to a path.

/// 16 hexadecimal digits.
pub fn random_id() -> String {
    format!("{:016x}", random())
}

/// A seed that JSON's readers keep whole, with room for the seeds after it.
pub fn random_seed() -> u64 {
    random() >> 12 // below 2^52
}

fn random() -> u64 {
    // Without the system's randomness there is nothing a server could do safely.
    getrandom::u64().expect("the system gives random numbers")
}
