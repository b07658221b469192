//! Reads numbers out of a Prometheus text exposition.

/// Returns the sum of the samples of `name` that have all of `labels`, each written as `label="value"`; 0 without one.
pub(super) fn sum(exposition: &str, name: &str, labels: &[&str]) -> f64 {
    exposition
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let has_all = labels.iter().all(|label| found.split(',').any(|found| found == *label));
            if has_all { value.split(' ').next()?.parse::<f64>().ok() } else { None }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let text = "# TYPE a_total counter\na_total{kind=\"x\"} 2\na_total{kind=\"x\",code=\"1\"} 3\na_total_more 9\n\
                    b 1.5\na_total{kind=\"xy\"} 100\n";
        assert_eq!(sum(text, "a_total", &[]), 105.0);
        assert_eq!(sum(text, "a_total", &["kind=\"x\""]), 5.0);
        assert_eq!(sum(text, "a_total", &["code=\"1\"", "kind=\"x\""]), 3.0);
        assert_eq!(sum(text, "b", &[]), 1.5);
        assert_eq!(sum(text, "c", &[]), 0.0);
    }
}
