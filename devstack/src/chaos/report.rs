//! `Report`: the outcome of a run, as a table for the terminal and for docs/reliability.md.

use std::fmt;

use serde::Serialize;

use super::verdict::Verdict;

/// What a run came to. Its JSON is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The command that repeats the schedule.
    pub(super) command: String,
    pub(super) seed: u64,
    pub(super) minutes: f64,
    pub(super) workers: usize,
    /// Jobs a second between bursts.
    pub(super) rate: f64,
    /// Faults that happened.
    pub(super) faults: usize,
    /// Kinds of fault for which the run was too short.
    pub(super) left_out: usize,
    /// Faults that could not be made to happen here, with the reason.
    pub(super) skipped: Vec<String>,
    #[serde(flatten)]
    pub(super) verdict: Verdict,
}

impl Report {
    /// Returns whether every guarantee was kept.
    pub fn passed(&self) -> bool {
        self.verdict.is_kept()
    }

    /// Returns what could not be done here.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let Verdict { beyond_one, queue, dead_letters, .. } = &self.verdict;
        let verdict = &self.verdict;
        let failed: Vec<String> = verdict.failed.iter().map(|(code, jobs)| format!("{code} {jobs}")).collect();
        let beyond = beyond_one.spoiled + beyond_one.signals + beyond_one.network + beyond_one.unexplained;
        let recovery = verdict.longest_recovery.as_ref();
        vec![
            ("faults", self.faults.to_string()),
            ("accepted", verdict.accepted.to_string()),
            ("succeeded", verdict.succeeded.to_string()),
            ("failed by code", if failed.is_empty() { "0".to_owned() } else { failed.join(", ") }),
            (
                "dead-lettered, and sent back when the faults were over",
                format!("{} jobs, {} copies of jobs that had ended", verdict.redriven, verdict.redriven_copies),
            ),
            ("lost (must be 0)", verdict.lost.to_string()),
            ("pictures paid", verdict.billed.to_string()),
            ("pictures paid beyond one a job", beyond.to_string()),
            ("  spoiled by the model, because the prompt asked for it", beyond_one.spoiled.to_string()),
            (
                "  in flight when a SIGKILL or SIGSTOP hit the call",
                format!("{} (at most {}, the calls hit)", beyond_one.signals, verdict.hit_by_signals),
            ),
            (
                "  in flight when the call lost its connection",
                format!("{} (at most {}, the calls hit)", beyond_one.network, verdict.hit_by_network),
            ),
            ("  without an excuse (must be 0)", beyond_one.unexplained.to_string()),
            ("URLs that did not work (must be 0)", format!("{} of {}", verdict.broken_urls, verdict.urls)),
            (
                "messages left (must be 0)",
                format!(
                    "{} visible, {} invisible, {} dead letters",
                    queue.visible,
                    queue.invisible,
                    dead_letters.visible + dead_letters.invisible
                ),
            ),
            (
                "longest recovery",
                recovery.map_or_else(
                    || "no picture was due after a fault".to_owned(),
                    |recovery| format!("{:.0} s, after: {}", recovery.seconds, recovery.after),
                ),
            ),
        ]
    }

    /// Returns the table as Markdown.
    pub fn markdown(&self) -> String {
        let rows: String =
            self.rows().into_iter().map(|(name, value)| format!("| {} | {value} |\n", name.trim())).collect();
        format!("`{}`\n\n| | |\n|---|---|\n{rows}", self.command)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in rows {
            writeln!(f, "{name:<width$}  {value}")?;
        }
        if self.left_out > 0 {
            writeln!(f, "\n{} of the kinds of fault did not fit into {} minutes", self.left_out, self.minutes)?;
        }
        for skipped in &self.skipped {
            writeln!(f, "\nSKIPPED: {skipped}")?;
        }
        if self.passed() {
            writeln!(f, "\nEvery guarantee was kept. Again: {}", self.command)
        } else {
            writeln!(f, "\nNOT KEPT:")?;
            self.verdict.breaches.iter().try_for_each(|breach| writeln!(f, "  {breach}"))?;
            writeln!(f, "\nThe same schedule again: {}", self.command)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::verdict::Evidence;

    #[test]
    fn a_breach_is_told_with_the_command_that_repeats_the_schedule() {
        let report = Report {
            command: "cargo dev chaos --minutes 5 --seed 7".to_owned(),
            seed: 7,
            minutes: 5.0,
            workers: 3,
            rate: 1.5,
            faults: 30,
            left_out: 0,
            skipped: vec!["a clock: no libfaketime".to_owned()],
            verdict: Verdict::of(&Evidence::default()),
        };
        let text = report.to_string();
        for part in ["NOT KEPT", "no job was accepted", "--seed 7", "SKIPPED: a clock"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(report.markdown().contains("| lost (must be 0) | 0 |"), "{}", report.markdown());
        assert_eq!(serde_json::to_value(&report).unwrap()["lost"], 0);
    }
}
