//! Shortens a failing plan: steps are removed, many at a time and then fewer, as long as it still
//! fails (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
//! 2002).

use crate::plan::Plan;
use crate::run;

/// The most runs that shortening takes.
const MAX_RUNS: usize = 200;

/// The shortest plan found that still fails.
pub fn shorten(plan: &Plan, mut progress: impl FnMut(usize)) -> Plan {
    let mut shortest = plan.clone();
    let mut piece = shortest.steps.len().div_ceil(2);
    let mut runs = 0;
    while piece > 0 {
        let mut from = 0;
        let before = shortest.steps.len();
        while from < shortest.steps.len() && runs < MAX_RUNS {
            let mut shorter = shortest.clone();
            let to = (from + piece).min(shorter.steps.len());
            shorter.steps.drain(from..to);
            runs += 1;
            if run::run(&shorter).violations.is_empty() {
                from += piece;
            } else {
                shortest = shorter;
            }
            progress(shortest.steps.len());
        }
        if shortest.steps.len() == before || piece > 1 {
            piece /= 2;
        }
    }
    shortest
}
