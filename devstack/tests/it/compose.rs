//! docker-compose.yml, .env.example, the Dockerfile and the dashboard against each other and the documents.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns `NAME=default` of every `${NAME:-default}`.
fn variables(text: &str) -> BTreeSet<String> {
    let reference = |rest: &str| rest.split_once('}').map(|(inside, _)| inside.replacen(":-", "=", 1));
    text.split("${").skip(1).filter_map(reference).collect()
}

#[test]
fn every_variable_of_the_compose_file_is_in_the_example_with_its_default() {
    let used = variables(&read("docker-compose.yml"));
    assert!(used.len() > 20, "only {} variables found: the search is broken", used.len());
    let example = read(".env.example");
    let given: BTreeSet<String> =
        example.lines().filter(|line| line.contains('=') && !line.starts_with('#')).map(str::to_owned).collect();
    assert_eq!(used, given);
}

#[test]
fn the_emulator_and_the_base_are_the_ones_that_the_tests_know() {
    let compose = read("docker-compose.yml");
    let emulator = format!("ministackorg/ministack:{}", devstack::ministack::VERSION);
    assert!(compose.contains(&emulator), "docker-compose.yml has another emulator than {emulator}");
    let dockerfile = read("Dockerfile");
    for (argument, variable) in [("RUST", "RUST_IMAGE"), ("BASE", "BASE_IMAGE"), ("BINARIES", "BINARIES")] {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(&format!("ARG {argument}="))).unwrap();
        let passed = format!("{argument}: ${{{variable}:-{line}}}");
        assert!(compose.contains(&passed), "docker-compose.yml lacks `{passed}`");
    }
}

/// Returns the value of a line `name: value` of one service, without quotes.
fn of_service<'a>(compose: &'a str, service: &str, name: &str) -> &'a str {
    let (_, block) = compose.split_once(&format!("\n  {service}:\n")).unwrap();
    let is_inside = |line: &&str| line.starts_with("   ") || line.is_empty() || line.trim_start().starts_with('#');
    let line = block.lines().take_while(is_inside).find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{service} has no {name}")).trim_matches('"')
}

#[test]
fn a_container_is_killed_later_than_it_has_drained() {
    let compose = read("docker-compose.yml");
    for service in ["api", "worker", "webhooks"] {
        let grace: u32 = of_service(&compose, service, "SHUTDOWN_GRACE_SECONDS").parse().unwrap();
        let stop = of_service(&compose, service, "stop_grace_period");
        let stop: u32 = stop.strip_suffix('s').unwrap().parse().unwrap();
        assert!(stop >= grace + 15, "{service} drains for {grace} s and is killed after {stop} s");
    }
}

#[test]
fn only_loopback_is_opened_and_no_service_has_the_engines_socket() {
    let compose = read("docker-compose.yml");
    let mut opened = 0;
    for (_, rest) in compose.match_indices("    ports:\n").map(|(at, key)| compose.split_at(at + key.len())) {
        for port in rest.lines().take_while(|line| line.starts_with("      - ")) {
            assert!(port.starts_with("      - \"127.0.0.1:"), "{port} is not on loopback alone");
            opened += 1;
        }
    }
    assert_eq!(opened, compose.matches("ports:").count(), "a port is written in another way than the others");
    assert!(!compose.contains("/docker.sock:") && !compose.contains("container_name"));
}

#[test]
fn no_image_is_built_by_two_services() {
    // A compose that builds in parallel may then fail on the second, which finds the image made.
    let compose = read("docker-compose.yml");
    let built: Vec<&str> =
        compose.lines().filter(|line| line.trim() == "build:" || line.trim().starts_with("build: ")).collect();
    let targets: BTreeSet<&str> = compose.lines().filter_map(|line| line.trim().strip_prefix("target: ")).collect();
    assert_eq!((built.len(), targets.len()), (3, 3), "{built:?} {targets:?}");
}

/// Returns every word that is the name of a metric.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_of_a_name(c));
    let ours = words.filter(|word| ["api_", "worker_", "webhook_"].iter().any(|ours| word.starts_with(ours)));
    ours.map(|word| {
        let of_histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| word.strip_suffix(suffix));
        of_histogram.unwrap_or(word).to_owned()
    })
    .collect()
}

#[test]
fn the_dashboard_shows_every_metric_of_the_documents_and_no_other() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("observability/grafana/dashboards/pipeline.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    let shown = metrics(&queries.join(" "));
    let rows = read("docs/metrics.md");
    let documented: String = rows.lines().filter(|line| line.starts_with("| `")).collect();
    let documented = metrics(&documented);
    assert!(documented.len() > 15, "only {} metrics found: the search is broken", documented.len());
    assert_eq!(shown, documented);
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "prometheus", "{}", panel["title"]);
    }
    assert!(read("observability/grafana/provisioning/datasources/prometheus.yml").contains("uid: prometheus"));
}

#[test]
fn the_preview_has_the_version_of_grafana_that_the_compose_file_starts() {
    let manifest: serde_json::Value = serde_json::from_str(&read("observability/preview/package.json")).unwrap();
    let compose = read("docker-compose.yml");
    for package in ["@grafana/data", "@grafana/schema", "@grafana/ui"] {
        let version = manifest["dependencies"][package].as_str().unwrap();
        assert!(compose.contains(&format!("grafana/grafana:{version}}}")), "{package} is {version}");
    }
    // Whoever installs it has a registry of their own.
    assert!(!read("observability/preview/package-lock.json").contains("\"resolved\""));
}
