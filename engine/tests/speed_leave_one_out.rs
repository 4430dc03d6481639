//! The figures of the speed priors, computed again from the committed measurements: each device predicted by what is
//! learnt from all others. Arithmetic only; nothing is timed.

#[path = "../examples/fit_speed/data.rs"]
#[expect(dead_code, reason = "the example prints more of a row than the test needs")]
mod data;
#[path = "../examples/fit_speed/evaluate.rs"]
mod evaluate;
#[path = "../examples/fit_speed/fit.rs"]
mod fit;

use data::Row;
use evaluate::Figures;
use muster_engine::speed::Priors;

#[test]
fn priors_predict_devices_that_they_were_not_learnt_from() {
    let data = data::read().expect("the data files are whole");
    assert_eq!((data.rows.len(), data.left_out.len()), (722, 2), "OpenCL's two rows are left out");
    let (priors, judged) = evaluate::run(&data);
    assert_eq!(priors.to_json(), Priors::shipped().to_json(), "run the example fit_speed with --write");
    let figures = |pass: &dyn Fn(&Row) -> bool| Figures::of(&judged, pass).expect("rows");
    for (name, pass, median, p90) in CLAIMS {
        let found = figures(pass);
        println!(
            "{name}: {} rows, {} devices, {:.1} / {:.1} %",
            found.rows,
            found.devices,
            found.median * 100.0,
            found.p90 * 100.0
        );
        assert!(found.median <= *median, "{name}: median {:.3}", found.median);
        assert!(found.p90 <= *p90, "{name}: p90 {:.3}", found.p90);
    }
    for decode in [true, false] {
        let held = figures(&|row| row.decode == decode).held;
        assert!((0.75..=0.88).contains(&held), "80 % intervals hold {held:.3}");
        let held = figures(&|row| row.decode == decode && row.experts).held;
        assert!((0.75..=0.88).contains(&held), "80 % intervals of experts hold {held:.3}");
    }
    let held = figures(&|row| row.depth > 0).held;
    assert!((0.75..=0.88).contains(&held), "80 % intervals at depth hold {held:.3}");
}

/// Whether a row counts.
type Pass = fn(&Row) -> bool;

/// Medians and ninth deciles that docs/benchmarks.md claims, rounded up.
const CLAIMS: &[(&str, &Pass, f64, f64)] = &[
    ("decode", &((|row| row.decode) as Pass), 0.09, 0.37),
    ("decode on GPUs", &((|row| row.decode && row.backend.name() != "cpu") as Pass), 0.08, 0.28),
    ("decode, CUDA", &((|row| row.decode && row.backend.name() == "cuda") as Pass), 0.075, 0.28),
    ("decode, experts", &((|row| row.decode && row.experts) as Pass), 0.14, 0.88),
    ("prefill", &((|row| !row.decode) as Pass), 0.145, 1.06),
    ("prefill on GPUs", &((|row| !row.decode && row.backend.name() != "cpu") as Pass), 0.13, 0.82),
    ("prefill, CUDA", &((|row| !row.decode && row.backend.name() == "cuda") as Pass), 0.125, 0.36),
    ("prefill, Metal", &((|row| !row.decode && row.backend.name() == "metal") as Pass), 0.04, 0.26),
    ("at depth", &((|row| row.depth > 0) as Pass), 0.22, 1.97),
];
