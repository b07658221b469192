//! Reads numbers out of a Prometheus text exposition.

/// Returns the sum of the samples of `name` that have all of `labels`, each written as `label="value"`; 0 when there are
/// none.
pub(crate) fn sum(exposition: &str, name: &str, labels: &[&str]) -> f64 {
    samples(exposition, name)
        .filter(|(found, _)| labels.iter().all(|label| found.contains(label)))
        .map(|(_, v)| v)
        .sum()
}

/// Returns the samples of `name`: labels as they are written, and value.
pub(crate) fn samples<'a>(exposition: &'a str, name: &'a str) -> impl Iterator<Item = (Vec<&'a str>, f64)> {
    exposition.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels.split(',').collect(), value.split(' ').next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP worker_jobs_total Deliveries by how their processing ended
# TYPE worker_jobs_total counter
worker_jobs_total{outcome=\"published\"} 12
worker_jobs_total{outcome=\"retried\"} 3
worker_cpu_task_seconds_bucket{task=\"render\",le=\"0.1\"} 4
worker_cpu_task_seconds_sum{task=\"render\"} 1.25
worker_cpu_task_seconds_sum{task=\"other\"} 0.5
worker_deliveries_in_flight 200
worker_deliveries_in_flight_more 7
";

    #[test]
    fn samples_are_found_by_name_and_labels() {
        assert_eq!(sum(TEXT, "worker_jobs_total", &[]), 15.0);
        assert_eq!(sum(TEXT, "worker_jobs_total", &["outcome=\"retried\""]), 3.0);
        assert_eq!(sum(TEXT, "worker_cpu_task_seconds_sum", &["task=\"render\""]), 1.25);
        assert_eq!(sum(TEXT, "worker_deliveries_in_flight", &[]), 200.0);
        assert_eq!(sum(TEXT, "worker_nothing", &[]), 0.0);
        let outcomes: Vec<_> = samples(TEXT, "worker_jobs_total").collect();
        assert_eq!(outcomes, [(vec!["outcome=\"published\""], 12.0), (vec!["outcome=\"retried\""], 3.0)]);
    }
}
