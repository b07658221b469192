//! `CloudWatch`: metrics that are published late, and alarms that are evaluated once a minute.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::expression::{Expression, Series};

/// A metric that the simulator publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricName {
    Visible,
    InFlight,
    Desired,
    InService,
    /// Average of the instances in service, in percent.
    Cpu,
}

impl MetricName {
    /// # Errors
    /// Names the metrics that are known.
    pub fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "ApproximateNumberOfMessagesVisible" => Self::Visible,
            "ApproximateNumberOfMessagesNotVisible" => Self::InFlight,
            "GroupDesiredCapacity" => Self::Desired,
            "GroupInServiceInstances" => Self::InService,
            _ => {
                return Err(format!(
                    "metric_name {name:?} is not simulated: use ApproximateNumberOfMessagesVisible or -NotVisible, \
                     GroupDesiredCapacity or GroupInServiceInstances, or add it to loadtest/src/simulate/alarm.rs"
                ));
            }
        })
    }

    #[must_use]
    pub fn is_of_queue(self) -> bool {
        matches!(self, Self::Visible | Self::InFlight)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Comparison {
    #[serde(rename = "GreaterThanOrEqualToThreshold")]
    GreaterOrEqual,
    #[serde(rename = "GreaterThanThreshold")]
    Greater,
    #[serde(rename = "LessThanThreshold")]
    Less,
    #[serde(rename = "LessThanOrEqualToThreshold")]
    LessOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MissingData {
    Breaching,
    NotBreaching,
    Ignore,
    Missing,
}

/// An alarm on a metric-math expression, with periods of 60 s.
#[derive(Debug, Clone)]
pub struct Alarm {
    pub name: String,
    /// Which metric each id of the expression is.
    pub metrics: BTreeMap<String, MetricName>,
    pub expression: Expression,
    pub comparison: Comparison,
    pub threshold: f64,
    pub evaluation_periods: usize,
    pub datapoints_to_alarm: usize,
    pub missing_data: MissingData,
    pub actions_enabled: bool,
}

/// Minutes beyond the evaluation periods that `CloudWatch` looks back for datapoints that are late. AWS does not say how many;
/// its example for three periods retrieves five:
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html>.
const LOOK_BACK_MINUTES: usize = 2;

/// Datapoints of all metrics, one a minute, each with the time from which it can be read.
#[derive(Debug, Default)]
pub struct Metrics {
    points: HashMap<MetricName, Vec<Option<(f64, f64)>>>,
    first_minute: Option<i64>,
}

impl Metrics {
    /// Stores the datapoint of a minute. `published_at` is in seconds, as all times of the simulation.
    pub fn publish(&mut self, name: MetricName, minute: i64, value: f64, published_at: f64) {
        let first = *self.first_minute.get_or_insert(minute);
        let Ok(index) = usize::try_from(minute - first) else { return };
        let points = self.points.entry(name).or_default();
        if points.len() <= index {
            points.resize(index + 1, None);
        }
        points[index] = Some((value, published_at));
    }

    fn series(&self, name: MetricName, last_minute: i64, length: usize, now: f64) -> Series {
        let first = self.first_minute.unwrap_or(0);
        let points = self.points.get(&name);
        let length = i64::try_from(length).unwrap_or(0);
        let read = |minute: i64| {
            let index = usize::try_from(minute - first).ok()?;
            let (value, published_at) = (*points?.get(index)?)?;
            (published_at <= now).then_some(value)
        };
        (last_minute + 1 - length..=last_minute).map(read).collect()
    }
}

impl Alarm {
    /// Evaluates the alarm as of `now` (seconds): the newest datapoint if it is in alarm and acts, else `None`.
    ///
    /// An alarm on a scaling policy acts once a minute for as long as it is in alarm:
    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html>.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "minutes of a simulated day")]
    pub fn evaluate(&self, metrics: &Metrics, now: f64) -> Option<f64> {
        let length = self.evaluation_periods + LOOK_BACK_MINUTES;
        let last_minute = (now / 60.0).floor() as i64 - 1;
        let series: BTreeMap<&str, Series> = self
            .metrics
            .iter()
            .map(|(id, name)| (id.as_str(), metrics.series(*name, last_minute, length, now)))
            .collect();
        let values = self.expression.evaluate(&series, length);
        // The newest that exist; what is missing beyond them counts as `treat_missing_data` says.
        let newest: Vec<f64> = values.into_iter().rev().flatten().take(self.evaluation_periods).collect();
        let breaching = newest.iter().filter(|value| self.breaches(**value)).count();
        let missing = self.evaluation_periods - newest.len();
        let assumed = if self.missing_data == MissingData::Breaching { missing } else { 0 };
        let is_in_alarm = breaching + assumed >= self.datapoints_to_alarm;
        newest.first().copied().filter(|_| is_in_alarm && self.actions_enabled)
    }

    fn breaches(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::GreaterOrEqual => value >= self.threshold,
            Comparison::Greater => value > self.threshold,
            Comparison::Less => value < self.threshold,
            Comparison::LessOrEqual => value <= self.threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(evaluation_periods: usize) -> Alarm {
        Alarm {
            name: "test".to_owned(),
            metrics: BTreeMap::from([("visible".to_owned(), MetricName::Visible)]),
            expression: Expression::parse("visible").unwrap(),
            comparison: Comparison::Greater,
            threshold: 10.0,
            evaluation_periods,
            datapoints_to_alarm: evaluation_periods,
            missing_data: MissingData::NotBreaching,
            actions_enabled: true,
        }
    }

    fn metrics(values: &[f64], delay: f64) -> Metrics {
        let mut metrics = Metrics::default();
        for (minute, value) in (0_i32..).zip(values) {
            metrics.publish(MetricName::Visible, i64::from(minute), *value, f64::from(minute) * 60.0 + delay);
        }
        metrics
    }

    #[test]
    fn a_datapoint_counts_from_its_publication_on() {
        let metrics = metrics(&[0.0, 99.0], 100.0);
        assert_eq!(alarm(1).evaluate(&metrics, 159.0), None);
        assert_eq!(alarm(1).evaluate(&metrics, 160.0), Some(99.0));
    }

    #[test]
    fn a_late_datapoint_does_not_end_an_alarm_and_a_queue_without_any_does() {
        let metrics = metrics(&[99.0], 60.0);
        assert_eq!(alarm(1).evaluate(&metrics, 190.0), Some(99.0), "two minutes late");
        assert_eq!(alarm(1).evaluate(&metrics, 250.0), None, "gone from what CloudWatch looks at");
    }

    #[test]
    fn three_of_three_wait_for_three() {
        let metrics = metrics(&[0.0, 99.0, 98.0, 97.0], 60.0);
        assert_eq!(alarm(3).evaluate(&metrics, 180.0), None);
        assert_eq!(alarm(3).evaluate(&metrics, 240.0), Some(97.0), "the newest is what the policy gets");
    }

    #[test]
    fn missing_datapoints_count_as_the_alarm_says() {
        let metrics = metrics(&[99.0], 60.0);
        assert_eq!(alarm(3).evaluate(&metrics, 60.0), None);
        let breaching = Alarm { missing_data: MissingData::Breaching, ..alarm(3) };
        assert_eq!(breaching.evaluate(&metrics, 60.0), Some(99.0));
        let disabled = Alarm { actions_enabled: false, ..breaching };
        assert_eq!(disabled.evaluate(&metrics, 60.0), None);
    }
}
