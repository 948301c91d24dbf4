//! Every call of every flow, but for some heartbeats, struck once: the gateway dies before it, after it, or with the effect still to come; the answer
//! is lost; or the gateway stands still. And every n-th crash of a second gateway during the recovery.

use boxpool_sim::crashpoints::{Options, flows, survey};

#[test]
fn whoever_dies_at_any_call_is_made_good_in_time() {
    let mut options = Options::default();
    (options.second_every, options.pairs_every) = (5, 20);
    let reports = survey(&options, |report| {
        println!(
            "{:>5} points, {:>4} with a second crash, {:>4} with a second fault, longest recovery {:>5.1} s: {}",
            report.points,
            report.second,
            report.pairs,
            report.longest.as_secs_f64(),
            report.flow
        );
    });
    assert_eq!(reports.len(), flows().len());
    for report in &reports {
        let (points, second) = (report.points - report.second - report.pairs, report.second);
        assert!(points >= 40, "{} has only {points} points: does it still do anything?", report.flow);
        assert!(second > 0, "{} was never struck twice", report.flow);
        // One death leaves at most a step, a claim and a machine to put right; two deaths twice as many.
        assert!(report.most_repairs <= 6, "{} took {} repairs", report.flow, report.most_repairs);
        let failures: Vec<String> =
            report.failures.iter().map(|(point, what)| format!("{what}\n    at {point}")).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
    println!("{} points in all", reports.iter().map(|report| report.points).sum::<usize>());
}
