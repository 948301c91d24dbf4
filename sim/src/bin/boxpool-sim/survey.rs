use boxpool_sim::crashpoints::{Options, survey as survey_all};
use std::process::ExitCode;
use std::time::Instant;

pub(crate) fn survey(only: String, second_every: usize, pairs_every: usize) -> ExitCode {
    let begun = Instant::now();
    let mut options = Options::default();
    (options.only, options.second_every, options.pairs_every) = (only, second_every, pairs_every);
    let reports = survey_all(&options, |report| {
        println!(
            "{:>7} points ({:>6} with a second crash, {:>6} with a second fault), longest recovery {:>5.1} s, at most {:>3} repairs, {} failing: {}",
            report.points,
            report.second,
            report.pairs,
            report.longest.as_secs_f64(),
            report.most_repairs,
            report.failures.len(),
            report.flow
        );
        for (point, violation) in report.failures.iter().take(5) {
            println!("        VIOLATION {violation}\n          at {point}");
        }
    });
    let points: usize = reports.iter().map(|report| report.points).sum();
    let failing: usize = reports.iter().map(|report| report.failures.len()).sum();
    println!("{points} points in {:.0} s, {failing} failing", begun.elapsed().as_secs_f64());
    if failing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
