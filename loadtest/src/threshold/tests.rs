//! Tests of thresholds: what they hold, what they refuse, and that one without samples fails.

use super::*;

fn parse(text: &str) -> Result<Thresholds, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Thresholds::read(Some(file.path())).map_err(|failure| failure.to_string())
}

fn nothing() -> Measured {
    Measured {
        eta_error_percent: None,
        latencies: [].into(),
        counts: Counts::default(),
        errors: [].into(),
        buckets: Vec::new(),
        duplicates_unseen: false,
    }
}

fn one(upload_p95: f64, counts: Counts) -> Measured {
    let quantiles = Quantiles { samples: 1, p95: upload_p95, ..Quantiles::default() };
    Measured { latencies: [(Metric::UploadSeconds, quantiles)].into(), counts, ..nothing() }
}

fn failed(verdicts: &[Verdict]) -> Vec<&str> {
    verdicts.iter().filter(|verdict| !verdict.passed).map(|verdict| verdict.name.as_str()).collect()
}

#[test]
fn the_defaults_are_the_targets_of_the_first_document() {
    let defaults = Thresholds::read(None).unwrap();
    let bounds: Vec<String> = defaults.threshold.iter().map(ToString::to_string).collect();
    for target in [
        "p95 of upload_seconds < 3",
        "p95 of cdn_download_seconds < 1",
        "cache_hit_percent > 70",
        "error_percent < 5",
        "availability_percent > 95",
        "scale_out_seconds < 300",
    ] {
        assert!(bounds.iter().any(|bound| bound == target), "{target} is not in {bounds:?}");
    }
}

#[test]
fn a_threshold_without_samples_fails() {
    let thresholds =
        parse("[[threshold]]\nname = \"up\"\nmetric = \"upload_seconds\"\nstatistic = \"p95\"\nbelow = 3.0");
    let thresholds = thresholds.unwrap();
    let verdicts = thresholds.judge("baseline", true, &nothing(), Seen::default());
    assert_eq!((failed(&verdicts), verdicts[0].measured), (vec!["up"], None));
    assert!(failed(&thresholds.judge("baseline", true, &one(2.9, Counts::default()), Seen::default())).is_empty());
    assert_eq!(failed(&thresholds.judge("baseline", true, &one(3.0, Counts::default()), Seen::default())), ["up"]);
    let all = Thresholds::read(None).unwrap().judge("baseline", true, &nothing(), Seen::default());
    assert!(all.iter().filter(|verdict| verdict.applies).all(|verdict| !verdict.passed), "{all:?}");
}

#[test]
fn scaling_out_is_judged_on_a_deployment_alone() {
    let defaults = Thresholds::read(None).unwrap();
    let scale_out = |is_local, seconds| {
        let verdicts =
            defaults.judge("heavy", is_local, &nothing(), Seen { scale_out_seconds: seconds, ..Seen::default() });
        let found = verdicts.into_iter().find(|verdict| verdict.bound.contains("scale_out")).unwrap();
        (found.applies, found.passed)
    };
    assert_eq!(scale_out(true, None), (false, true));
    assert_eq!(scale_out(false, None), (true, false), "no worker was added");
    assert_eq!(scale_out(false, Some(250.0)), (true, true));
    assert_eq!(scale_out(false, Some(300.0)), (true, false));
}

#[test]
fn duplicates_that_nobody_could_see_are_no_pass() {
    let thresholds = parse("[[threshold]]\nname = \"twice\"\nmetric = \"duplicates\"\nat_most = 0").unwrap();
    let run = |duplicates, duplicates_unseen| {
        let counts = Counts { pictures: 9, duplicates, ..Counts::default() };
        let verdict =
            &thresholds.judge("heavy", true, &Measured { counts, duplicates_unseen, ..nothing() }, Seen::default())[0];
        (verdict.measured, verdict.passed)
    };
    assert_eq!([run(0, false), run(0, true)], [(Some(0.0), true), (None, false)]);
    assert_eq!([run(1, false), run(1, true)], [(Some(1.0), false), (Some(1.0), false)]);
}

#[test]
fn ratios_are_of_what_was_counted() {
    let counts = Counts {
        operations: 100,
        failed: 4,
        requests: 80,
        unavailable: 4,
        cache_hits: 71,
        cache_misses: 29,
        ..Counts::default()
    };
    assert_eq!(error_percent(&counts), Some(4.0));
    assert_eq!(availability_percent(&counts), Some(95.0));
    assert_eq!(cache_hit_percent(&counts), Some(71.0));
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_name() {
    let threshold = |rest: &str| parse(&format!("[[threshold]]\nname = \"mine\"\n{rest}")).unwrap_err();
    for (rest, part) in [
        ("metric = \"upload_seconds\"\nstatistic = \"p95\"", "exactly one"),
        ("metric = \"upload_seconds\"\nstatistic = \"p95\"\nbelow = 1\nabove = 0", "exactly one"),
        ("metric = \"upload_seconds\"\nbelow = 1", "add a statistic"),
        ("metric = \"duplicates\"\nstatistic = \"p95\"\nat_most = 0", "take statistic out"),
        ("metric = \"duplicates\"\nat_most = 0\nscenarios = [\"bassline\"]", "bassline"),
        ("metric = \"duplicates\"\nat_most = nan", "finite"),
    ] {
        let error = threshold(rest);
        assert!(error.contains("mine") && error.contains(part), "{error}");
    }
    let error = threshold("metric = \"uploads\"\nbelow = 1");
    assert!(error.contains("line 3") && error.contains("\"uploads\"") && error.contains("upload_seconds"), "{error}");
    assert!(threshold("metric = \"upload_seconds\"\nstatistic = \"p96\"\nbelow = 1").contains("`p95`"));
    assert!(parse("# none yet\n").unwrap_err().contains("cannot fail"));
    assert!(parse("[[treshold]]\n").unwrap_err().contains("treshold"));
}
