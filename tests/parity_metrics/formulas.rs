//! Measures of recorded features.

use tch::{Kind, Tensor};
use vqdiffusion::metrics::clip_score::{clip_score, cosines};
use vqdiffusion::metrics::cmmd::cmmd;
use vqdiffusion::metrics::fd_infinity::{fd_infinity, sizes};
use vqdiffusion::metrics::inception_score::inception_score;
use vqdiffusion::metrics::kid::{kid, mmd};
use vqdiffusion::metrics::memorisation::authpct;
use vqdiffusion::metrics::prdc::prdc;
use vqdiffusion::metrics::subsets::subset;
use vqdiffusion::metrics::vendi::vendi;
use vqdiffusion::metrics::{frechet_distance, Gaussian, MetricError};
use vqdiffusion::random::MeasureDraw;

use crate::case::{integers, Case};
use crate::{check, check_value};

type Part = fn(&mut Case) -> Result<(), MetricError>;

pub fn run(case: &mut Case) {
    let parts: [(&str, Part); 8] = [
        ("input.fid.", fid),
        ("input.isc.logits", isc),
        ("input.kid.a", kernel),
        ("input.prc.real", precision_recall),
        ("input.clip.image_embeds", clip),
        ("input.cmmd.", cmmd_pairs),
        ("input.prdc.real", neighbours),
        ("input.fd_inf.real", extrapolated),
    ];
    for (start, part) in parts {
        if case.has(start) || !case.names_below(start).is_empty() {
            case.section(start, |case| {
                if let Err(error) = part(case) {
                    case.fail(error);
                }
            });
        }
    }
}

/// The first parts of the names `prefix` + part + `.a`.
fn pairs(case: &Case, prefix: &str, side: &str) -> Vec<String> {
    let rests = case.names_below(prefix);
    let parts = rests.iter().filter_map(|rest| rest.strip_suffix(side));
    parts.map(str::to_string).collect()
}

fn fid(case: &mut Case) -> Result<(), MetricError> {
    for pair in pairs(case, "input.fid.", ".a") {
        let side = |side: &str| case.input(&format!("input.fid.{pair}.{side}"));
        let (a, b) = (Gaussian::of(&side("a"))?, Gaussian::of(&side("b"))?);
        let name = format!("expected.fid.{pair}");
        check_value(case, &name, frechet_distance(&a, &b)?);
        check(case, &format!("{name}.mu_a"), &a.mean);
        let trace = a.trace();
        check_value(case, &format!("{name}.trace_cov_a"), trace);

        // From the features of few pictures no covariance is made; statistics have one.
        let stored = |g: &Gaussian| Gaussian::new(g.mean.shallow_clone(), g.covariance());
        let (stored_a, stored_b) = (stored(&a), stored(&b));
        check_value(case, &name, frechet_distance(&stored_a, &stored_b)?);
        let itself = frechet_distance(&a, &a)?;
        if itself.abs() > 1e-6 * trace {
            case.fail(format!("{name}: {itself:e} from itself, tr Σ {trace}"));
        }
        let itself = frechet_distance(&stored_a, &stored_a)?;
        if itself.abs() > 1e-6 * trace {
            case.fail(format!(
                "{name}: {itself:e} from its own statistics, tr Σ {trace}"
            ));
        }
        let there = frechet_distance(&b, &a)? - frechet_distance(&a, &b)?;
        if there.abs() > 1e-6 * trace {
            case.fail(format!("{name}: {there:e} between the two orders"));
        }
    }
    Ok(())
}

fn isc(case: &mut Case) -> Result<(), MetricError> {
    let logits = case.input("input.isc.logits");
    let ten = inception_score(&logits, 10)?;
    check_value(case, "expected.isc.mean", ten.mean);
    check_value(case, "expected.isc.std", ten.std);
    let whole = inception_score(&logits, 1)?.mean;
    check_value(case, "expected.isc.mean_1split", whole);
    Ok(())
}

fn kernel(case: &mut Case) -> Result<(), MetricError> {
    let (a, b) = (case.input("input.kid.a"), case.input("input.kid.b"));
    check_value(case, "expected.kid.full", mmd(&a, &b)?);
    let index = ["a", "b"].map(|side| case.input(&format!("input.kid.subset_index_{side}")));
    let size = index[0].size()[1] as usize;
    let recorded: Vec<_> = (0..index[0].size()[0])
        .map(|i| (integers(&index[0].get(i)), integers(&index[1].get(i))))
        .collect();
    let values = kid(&a, &b, &recorded)?.values;
    check(
        case,
        "expected.kid.subset_values",
        &Tensor::from_slice(&values),
    );
    // Other subsets than the package drew: its tolerance allows for that.
    let draw = |i: u64, x: &Tensor| subset(2020, MeasureDraw::Kid, i, x.size()[0] as usize, size);
    let drawn: Vec<_> = (0..100)
        .map(|i| (draw(2 * i, &a), draw(2 * i + 1, &b)))
        .collect();
    let drawn = kid(&a, &b, &drawn)?;
    check_value(case, "expected.kid.subsets_mean", drawn.mean);
    check_value(case, "expected.kid.subsets_std", drawn.std);
    Ok(())
}

fn precision_recall(case: &mut Case) -> Result<(), MetricError> {
    let side = |side: &str| case.input(&format!("input.prc.{side}"));
    for figures in prdc(&side("generated"), &side("real"), &[3, 5])? {
        let name = |figure: &str| format!("expected.prc.k{}.{figure}", figures.k);
        check_value(case, &name("precision"), figures.precision);
        check_value(case, &name("recall"), figures.recall);
        check_value(case, &name("f_score"), figures.f_score());
    }
    Ok(())
}

fn clip(case: &mut Case) -> Result<(), MetricError> {
    let side = |side: &str| case.input(&format!("input.clip.{side}_embeds"));
    let cosines = cosines(&side("image"), &side("text"))?;
    check(case, "expected.clip.cosine", &cosines);
    let score = clip_score(&cosines);
    check_value(case, "expected.clip.score_100", score.score_100);
    check_value(case, "expected.clip.clipscore_2.5", score.clipscore_2_5);
    Ok(())
}

fn cmmd_pairs(case: &mut Case) -> Result<(), MetricError> {
    for pair in pairs(case, "input.cmmd.", ".x") {
        let side = |side: &str| case.input(&format!("input.cmmd.{pair}.{side}"));
        let value = cmmd(&side("x"), &side("y"))?;
        check_value(case, &format!("expected.cmmd.{pair}"), value);
    }
    Ok(())
}

fn neighbours(case: &mut Case) -> Result<(), MetricError> {
    let (fake, real) = (case.input("input.prdc.fake"), case.input("input.prdc.real"));
    for figures in prdc(&fake, &real, &[3, 5])? {
        let name = |figure: &str| format!("expected.prdc.k{}.{figure}", figures.k);
        check_value(case, &name("precision"), figures.precision);
        check_value(case, &name("recall"), figures.recall);
        check_value(case, &name("density"), figures.density);
        check_value(case, &name("coverage"), figures.coverage);
    }
    check_value(case, "expected.authpct", authpct(&fake, &real)?);
    check_value(case, "expected.vendi", vendi(&fake)?);
    check_value(case, "expected.vendi_real", vendi(&real)?);
    Ok(())
}

fn extrapolated(case: &mut Case) -> Result<(), MetricError> {
    let generated = case.input("input.fd_inf.generated");
    let ours: Vec<i64> = sizes(generated.size()[0] as usize)
        .into_iter()
        .map(|size| size as i64)
        .collect();
    let recorded = integers(&case.input("input.fd_inf.sizes"));
    if ours != recorded {
        case.fail(format!("sizes of FD∞ {ours:?}, expected {recorded:?}"));
    }
    let mut rows = integers(&case.input("input.fd_inf.index")).into_iter();
    let subsets: Vec<Vec<i64>> = recorded
        .iter()
        .map(|&size| rows.by_ref().take(size as usize).collect())
        .collect();
    let real = Gaussian::of(&case.input("input.fd_inf.real"))?;
    let line = fd_infinity(&generated.to_kind(Kind::Float), &real, &subsets)?;
    check_value(case, "expected.fd_inf.value", line.value);
    check_value(case, "expected.fd_inf.slope", line.slope);
    check(
        case,
        "expected.fd_inf.values",
        &Tensor::from_slice(&line.values),
    );
    Ok(())
}
