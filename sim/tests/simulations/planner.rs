//! The planner: what it reads, the visits it makes, and that its tables say what is so.

use boxpool_sim::planner::{
    Arrivals, ArrivalsError, Bounds, Habits, Percentile, Plan, Policy, PriceList, Row, Table, Trace, html, parse_span,
    policies, run_policy, svg,
};
use proptest::prelude::*;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

fn made(spec: &str, seed: u64) -> Trace {
    spec.parse::<Arrivals>().unwrap().trace(seed, None, &Habits::default()).unwrap()
}

fn why(error: &dyn Error) -> String {
    boxpool::Report(error).to_string()
}

#[test]
fn words_that_say_nothing_are_refused_with_what_to_write() {
    for (spec, word) in [
        ("poisson:45", "rate"),
        ("poisson:45/week", "the unit"),
        ("poisson:-1/h", "million"),
        ("poisson:NaN/h", "million"),
        ("poisson:1/h,0", "0 days"),
        ("poisson:1/h,1,1", "too many"),
        ("diurnal:60/h", "missing"),
        ("diurnal:1/h,60/h", "above"),
        ("office:0", "number of people"),
        ("class:many", "number of people"),
    ] {
        let error = spec.parse::<Arrivals>().unwrap_err();
        assert!(why(&error).contains(word) && why(&error).contains("write poisson:RATE"), "{spec}: {error}");
    }
    let error = "no such file".parse::<Arrivals>().unwrap().trace(0, None, &Habits::default()).unwrap_err();
    assert!(matches!(error, ArrivalsError::Read { .. }), "{error}");
    let error = "poisson:1000/s".parse::<Arrivals>().unwrap().trace(0, None, &Habits::default()).unwrap_err();
    assert!(why(&error).contains("at most 1000000"), "{error}");
}

#[test]
fn a_wrong_line_of_a_trace_is_named_with_what_is_wrong() {
    let header = "at_s,box,stay_s\n";
    for (text, line, word) in [
        ("at,who,stay\n1,a,1\n".to_owned(), 1, "header"),
        (format!("{header}1,a,1\nsoon,a,1\n"), 3, "at_s is \"soon\""),
        (format!("{header}1,a,-1\n"), 2, "stay_s is \"-1\""),
        (format!("{header}1,a,inf\n"), 2, "stay_s"),
        (format!("{header}# a remark\n1,,1\n"), 3, "box is \"\""),
        (format!("{header}1,a\n"), 2, "at_s,box,stay_s"),
    ] {
        match Trace::from_csv(&text).unwrap_err() {
            ArrivalsError::Line { line: at, why } => assert!(at == line && why.contains(word), "{text}: {at}: {why}"),
            other => panic!("{text}: {other}"),
        }
    }
    assert!(matches!(Trace::from_csv(header).unwrap_err(), ArrivalsError::Nobody));
}

#[test]
fn a_trace_is_read_in_any_order_and_written_as_it_was() {
    let text = "at_s,box,stay_s\n1.5,ada,60\n7,bob,2.25\n";
    let mixed = "# mine\nat_s, box, stay_s\n7,bob,2.25\n1.5,ada,60\n";
    let trace = Trace::from_csv(text).unwrap();
    assert_eq!(trace.to_csv(), text);
    assert_eq!(Trace::from_csv(mixed).unwrap().to_csv(), text);
    assert_eq!(trace.until(Duration::from_secs(5)).unwrap().visits().len(), 1);
}

fn shipped(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("traces").join(file)).unwrap()
}

#[test]
fn the_shipped_synthetic_traces_are_what_the_tool_makes() {
    for (file, spec) in [("office.csv", "office:12"), ("class.csv", "class:30")] {
        assert_eq!(shipped(file), made(spec, 1).to_csv(), "{file}");
    }
}

#[test]
fn the_shipped_real_trace_names_its_licence_and_holds_what_its_readme_says() {
    let text = shipped("charging.csv");
    assert!(text.lines().take_while(|line| line.starts_with('#')).any(|line| line.contains("under CC BY 4.0")));
    let trace = Trace::from_csv(&text).unwrap();
    assert_eq!((trace.visits().len(), trace.boxes().len()), (855, 50));
    let weekend = (0..4).map(|week| visits(&trace, week * 7 + 5..week * 7 + 7, 0..24)).sum::<f64>();
    assert_eq!((weekend, visits(&trace, 21..22, 0..24)), (100.0, 11.0), "and on a holiday");
    let mut stays: Vec<_> = trace.visits().iter().map(|visit| visit.stay).collect();
    stays.sort_unstable();
    let seconds = [stays[0], stays[427], stays[854]].map(|stay| stay.as_secs());
    assert_eq!(seconds, [335, 23_401, 428_060], "the shortest, the median and the longest");
    let mut leaves = vec![Duration::ZERO; trace.boxes().len()];
    for visit in trace.visits() {
        assert!(leaves[visit.which] <= visit.at, "two at once at {}", trace.boxes()[visit.which]);
        leaves[visit.which] = visit.at + visit.stay;
    }
}

#[test]
fn the_same_seed_makes_the_same_visits_and_another_one_others() {
    for spec in ["poisson:20/h", "diurnal:30/h,1/h", "office:5", "class:10"] {
        assert_eq!(made(spec, 3), made(spec, 3), "{spec}");
        assert_ne!(made(spec, 3), made(spec, 4), "{spec}");
        assert_eq!(Trace::from_csv(&made(spec, 3).to_csv()).unwrap(), made(spec, 3), "{spec}");
    }
}

/// How many visits begin within those hours of those days.
fn visits(trace: &Trace, days: std::ops::Range<u64>, hours: std::ops::Range<u64>) -> f64 {
    let within = |at: &Duration| {
        let hour = at.as_secs() / 3_600;
        days.contains(&(hour / 24)) && hours.contains(&(hour % 24))
    };
    trace.visits().iter().filter(|visit| within(&visit.at)).count() as f64
}

#[test]
fn as_many_come_as_the_rates_say() {
    // Four deviations of a Poisson number.
    let even = made("poisson:60/h,5", 1).visits().len() as f64;
    assert!((even - 7_200.0).abs() < 4.0 * 7_200_f64.sqrt(), "{even}");

    let trace = made("diurnal:60/h,2/h,14", 1);
    let afternoons = visits(&trace, 0..5, 13..15) / 5.0;
    assert!((100.0..135.0).contains(&afternoons), "two hours at the peak of 60: {afternoons}");
    let nights = visits(&trace, 0..5, 0..6) / 5.0;
    assert!((6.0..18.0).contains(&nights), "six hours at 2: {nights}");
    let weekend = visits(&trace, 5..7, 0..24) / 2.0;
    assert!((30.0..70.0).contains(&weekend), "24 hours at 2: {weekend}");
}

#[test]
fn boxes_have_usual_hours() {
    let trace = made("diurnal:60/h,2/h,7", 1);
    // Of the visits on Tuesday most follow one to the same box at about the same time on Monday.
    let at = |day: u64| trace.visits().iter().filter(move |visit| visit.at.as_secs() / 86_400 == day);
    let again = |which: usize, at_s: u64| {
        at(0).any(|other| other.which == which && (other.at.as_secs() + 86_400).abs_diff(at_s) < 3_600)
    };
    let (all, usual) = (at(1).count(), at(1).filter(|visit| again(visit.which, visit.at.as_secs())).count());
    assert!(usual * 10 > all * 6, "{usual} of {all}");
    let mut ends = vec![Duration::ZERO; trace.boxes().len()];
    for visit in trace.visits() {
        assert!(visit.at + Duration::from_secs(31) > ends[visit.which], "one visit at a time: {visit:?}");
        ends[visit.which] = visit.at + visit.stay;
    }
}

const PRICES: &str = "currency = \"EUR\"\nmachine_hour = 0.1\nstopped_machine_hour = 0.01\nvolume_gib_month = 0.1\n\
    snapshot_gib_month = 0.1\nstore_calls_10k = 0.001\nvolume_gib = 10\nsnapshot_gib = 1\n";

#[test]
fn a_price_list_that_says_too_much_or_too_little_is_refused() {
    assert_eq!(PriceList::parse(PRICES).unwrap().currency(), "EUR");
    assert_eq!(PriceList::example().currency(), "USD");
    for (text, word) in [
        (format!("{PRICES}discount = 1\n"), "discount"),
        (PRICES.replace("machine_hour = 0.1\n", ""), "machine_hour"),
        (PRICES.replace("volume_gib = 10", "volume_gib = -1"), "volume_gib is -1"),
        (PRICES.replace("volume_gib = 10", "volume_gib = nan"), "volume_gib"),
        (PRICES.replace("EUR", ""), "currency"),
    ] {
        let error = PriceList::parse(&text).unwrap_err();
        assert!(why(&error).contains(word), "{word}: {}", why(&error));
    }
}

#[test]
fn a_policy_is_its_settings() {
    let policy = "free=4,reserve=2,park=1h,linger=5s,cool=2m,makes=3".parse::<Policy>().unwrap();
    let config = policy.config();
    let instances = config.instances;
    assert_eq!((instances.min_free, instances.max_free, instances.min_reserve, instances.max_reserve), (4, 4, 2, 2));
    assert_eq!((config.park_limit, config.linger), (Duration::from_secs(3_600), Duration::from_secs(5)));
    assert_eq!((instances.cool_down, instances.max_concurrent_creates), (Duration::from_secs(120), 3));
    for bad in ["", "free", "free=x", "free=10001", "free=-1", "makes=0", "park=1", "park=1w", "warm=3"] {
        let error = bad.parse::<Policy>().unwrap_err();
        assert!(error.to_string().contains("known are free ("), "{bad}: {error}");
    }
}

proptest! {
    #[test]
    fn whatever_is_written_nothing_panics(text in "\\PC{0,60}", lines in proptest::collection::vec("[0-9]{1,3}(\\.[0-9]{1,3})?,[a-c#\" ]{1,2},[0-9.-]{1,3}", 0..6)) {
        for kind in ["", "poisson:", "diurnal:", "office:", "class:", "free=", "park="] {
            let spec = format!("{kind}{text}");
            let _ = spec.parse::<Policy>();
            let _ = spec.parse::<Percentile>();
            if let Ok(arrivals) = spec.parse::<Arrivals>() && arrivals.is_made() {
                let _ = arrivals.trace(0, Some(0.01), &Habits::default());
            }
        }
        let _ = parse_span(&text);
        let _ = PriceList::parse(&text);
        let _ = PriceList::parse(&format!("{PRICES}{text}"));
        let _ = Trace::from_csv(&text);
        if let Ok(trace) = Trace::from_csv(&format!("at_s,box,stay_s\n{}", lines.join("\n"))) {
            prop_assert_eq!(Trace::from_csv(&trace.to_csv()).unwrap(), trace);
        }
    }

    #[test]
    fn rates_and_days_of_any_size_make_visits_or_an_error(number in 0.0..2e6_f64, days in 0.0..400.0_f64, seed: u64) {
        // Few at a time, so that it does not take long.
        for spec in [format!("poisson:{number}/day,{days}"), format!("diurnal:{number}/day,0/h,{days}")] {
            if let Ok(arrivals) = spec.parse::<Arrivals>() {
                let _ = arrivals.trace(seed, Some(0.001), &Habits::default());
            }
        }
    }
}

/// Some hours of a few visits, in which three come at once.
fn morning() -> Trace {
    let visits =
        [(600, "a", 900), (605, "b", 1_800), (610, "c", 600), (5_000, "a", 600), (5_400, "b", 300), (9_000, "d", 60)];
    let lines = visits.map(|(at, name, stay)| format!("{at},{name},{stay}\n"));
    Trace::from_csv(&format!("at_s,box,stay_s\n{}", lines.concat())).unwrap()
}

fn row(policy: &str) -> Row {
    let bounds = Bounds {
        lasts: Duration::from_secs(4 * 3_600),
        skips: Duration::ZERO,
        instances: None,
        patience: Duration::from_secs(900),
    };
    let runs = [0, 1].map(|seed| run_policy(&policy.parse().unwrap(), &morning(), &bounds, seed).unwrap());
    Row::new(policy, &runs, &PriceList::parse(PRICES).unwrap())
}

#[test]
fn more_free_machines_cost_more_and_nobody_waits_longer() {
    let rows = ["free=0,park=0s", "free=1,park=0s", "free=4,park=0s"].map(row);
    for pair in rows.windows(2) {
        assert!(pair[0].idle_hours_a_day < pair[1].idle_hours_a_day && pair[0].month < pair[1].month, "{pair:?}");
        assert!(pair[0].at_once < pair[1].at_once, "{pair:?}");
        assert_eq!(pair[0].month_of_volumes, pair[1].month_of_volumes);
    }
    let [none, _, four] = &rows;
    assert_eq!(
        (none.connects, none.refused, none.at_once, none.came_back),
        (12, 0, 0.0, 0.0),
        "a machine is made for each"
    );
    assert_eq!(four.at_once, 1.0);
    assert!(none.wait(Percentile::P50) > four.wait(Percentile::P50) + Duration::from_secs(20), "{rows:?}");
    // Four free machines all the time, and those in use are not idle.
    assert!((4.0 * 24.0..5.0 * 24.0).contains(&four.idle_hours_a_day), "{four:?}");
}

#[test]
fn who_returns_to_a_parked_box_does_not_wait_for_a_machine() {
    let (parked, not) = (row("free=1,park=2h"), row("free=1,park=0s"));
    assert_eq!((parked.came_back, not.came_back), (4.0 / 12.0, 0.0));
    assert!(parked.idle_hours_a_day > not.idle_hours_a_day);
    assert!(parked.wait(Percentile::P50) <= not.wait(Percentile::P50));
}

#[test]
fn who_waits_for_too_long_is_refused_and_counted_as_having_waited() {
    let bounds = Bounds {
        lasts: Duration::from_secs(3 * 3_600),
        skips: Duration::ZERO,
        instances: Some(1),
        patience: Duration::from_secs(120),
    };
    let run = run_policy(&"free=1".parse().unwrap(), &morning(), &bounds, 0).unwrap();
    let refused = Row::new("free=1", &[run], &PriceList::example());
    assert!(refused.refused > 0, "{refused:?}");
    assert!(refused.wait("100".parse().unwrap()) >= Duration::from_secs(119), "{refused:?}");
}

fn plan() -> Plan {
    let mut plan =
        Plan::new("poisson:12/h,0.2".parse().unwrap(), policies(["free=0", "free=2", "free=1,park=0s"]).unwrap());
    plan.seeds = 2;
    plan
}

#[test]
fn a_plan_gives_the_same_table_on_any_number_of_threads() {
    let alone = plan().run(|_| {}).unwrap();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let beside = Plan { jobs: std::num::NonZeroUsize::new(3).unwrap(), ..plan() };
    let beside = beside.run(|_| _ = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).unwrap();
    assert_eq!(alone, beside);
    assert_eq!(done.into_inner(), 6);
    let rows = alone.rows();
    assert!(rows.is_sorted_by_key(|row| row.month) && rows[0].best, "{alone}");
    for row in rows {
        let beaten = rows.iter().any(|other| {
            let (quick, other_quick) = (row.wait(alone.percentile()), other.wait(alone.percentile()));
            other.month <= row.month && other_quick <= quick && (other.month, other_quick) != (row.month, quick)
        });
        assert_ne!(row.best, beaten, "{alone}");
    }
}

#[test]
fn a_plan_without_policies_or_seeds_is_refused() {
    for wrong in [
        Plan { seeds: 0, ..plan() },
        Plan { policies: vec![], ..plan() },
        Plan { days: Some(-1.0), ..plan() },
        Plan { skip_days: -1.0, ..plan() },
        Plan { skip_days: 0.2, ..plan() },
        Plan { skip_days: f64::NAN, ..plan() },
    ] {
        wrong.run(|_| {}).unwrap_err();
    }
}

#[test]
fn what_is_skipped_is_run_and_not_counted() {
    let policy: Policy = "free=1,park=0s".parse().unwrap();
    let run = |skips: u64| {
        let (lasts, skips) = (Duration::from_secs(4 * 3_600), Duration::from_secs(skips));
        let bounds = Bounds { lasts, skips, instances: None, patience: Duration::from_secs(900) };
        run_policy(&policy, &morning(), &bounds, 0).unwrap()
    };
    let (all, rest) = (run(0), run(3_600));
    assert_eq!((all.connects.len(), rest.connects.len()), (6, 3), "three came in the first hour");
    assert_eq!(rest.connects[..], all.connects[3..], "and the others met the same pool");
    assert_eq!((all.lasted - rest.lasted).as_secs(), 3_600);
    let idle = (all.usage.idle_machines - rest.usage.idle_machines).as_secs();
    assert!((1_800..7_200).contains(&idle), "about one was idle: {idle} s");
}

#[test]
fn several_seeds_say_how_sure_they_are_and_one_does_not() {
    let names = ["free=0,park=0s", "free=4,park=0s", "free=0,goal=90%,park=0s"];
    let plan = Plan { policies: policies(names).unwrap(), first_seed: 7, ..plan() };
    let seen = std::sync::Mutex::new(Vec::new());
    let table = plan.run(|run| seen.lock().unwrap().push(run.seed)).unwrap();
    assert_eq!(seen.into_inner().unwrap(), [7, 8, 7, 8, 7, 8]);
    let text = table.to_string();
    assert!(text.contains("means of 2 seeds") && text.contains(" ± "), "{text}");
    let [saving] = table.savings() else { panic!("{text}") };
    assert!(saving.policy == names[2] && text.ends_with(&saving.to_string()), "{text}");
    for row in table.rows() {
        let waited: usize = row.seeds.iter().map(|seed| seed.waited).sum();
        assert!((row.at_once - (1.0 - waited as f64 / row.connects as f64)).abs() < 1e-9, "{row:?}");
    }
    let alone = Plan { seeds: 1, ..plan }.run(|_| {}).unwrap();
    assert!(alone.savings().is_empty() && !alone.to_string().contains("±"), "{alone}");
}

/// Elements that were opened and not closed, in order.
fn unclosed(page: &str) -> Vec<String> {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag) {
        let name = tag.trim_matches('/').split_whitespace().next().unwrap_or_default().to_owned();
        match tag {
            _ if tag.starts_with('!') || tag.starts_with('?') || tag.ends_with('/') || name == "meta" => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "{page}"),
            _ => open.push(name),
        }
    }
    open
}

#[test]
fn the_plot_is_well_formed_and_names_every_policy() {
    let row = |name: &str| Row::new(name, &[], &PriceList::example());
    let rows: Vec<Row> = ["free=0", "free=1", "free=2,park=1h"].map(row).into();
    let table = Table::new(rows.clone(), Percentile::P99, &PriceList::example());
    for page in [svg(&table).unwrap(), html(&table, "a & b < c").unwrap()] {
        assert_eq!(unclosed(&page), Vec::<String>::new(), "{page}");
        assert!(rows.iter().all(|row| page.contains(&row.policy)), "{page}");
        assert!(!page.contains("http://") || !page.contains("src="), "nothing is loaded: {page}");
    }
    assert!(html(&table, "a & b < c").unwrap().contains("<h1>a &amp; b &lt; c</h1>"));
}
