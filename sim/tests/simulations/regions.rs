use boxpool_sim::regions::{flows, replay, survey};

#[test]
fn flows_over_regions_end_well_when_nothing_goes_wrong() {
    for flow in flows() {
        let (_, wrong) = replay(flow, None);
        assert!(wrong.is_empty(), "{flow}: {wrong:#?}");
    }
}

fn survey_is_clean(every: usize) {
    for report in survey("", every) {
        eprintln!("{}: {} points, the longest took {:?}", report.flow, report.points, report.longest);
        assert!(report.failures.is_empty(), "{}: {:#?}", report.flow, report.failures);
        assert!(report.points > 0, "{} has no points", report.flow);
    }
}

#[test]
fn no_single_fault_leaves_a_box_without_a_home_or_with_two() {
    survey_is_clean(13);
}

#[test]
#[ignore = "every point of every flow: most of a minute"]
fn no_single_fault_at_any_call_leaves_a_box_without_a_home_or_with_two() {
    survey_is_clean(1);
}
