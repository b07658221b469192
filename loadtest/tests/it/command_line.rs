//! The command line: its help, what it refuses, and the guard that keeps load away from everything else.

use crate::live::{Live, loadtest, said};

async fn help(command: &str) -> String {
    let output = loadtest(&format!("{command} --help")).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_help_is_the_reference() {
    insta::assert_snapshot!("help", help("").await);
    for command in ["run", "capacity", "monitor", "compare", "render", "screenshot"] {
        insta::assert_snapshot!(format!("help_{command}"), help(command).await);
    }
}

#[tokio::test]
async fn what_cannot_be_run_exits_64_with_the_field_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().display();
    for (line, parts) in [
        (format!("run --dir {empty}"), ["endpoints.json", "cargo dev up"]),
        (format!("monitor --once --dir {empty}"), ["endpoints.json", "cargo dev up"]),
        (format!("run --outputs {empty}/none.json"), ["--outputs", "none.json"]),
        (format!("run --terraform-dir {empty}/none"), ["--terraform-dir", "no such folder"]),
        ("run bassline".to_owned(), ["bassline", "baseline"]),
        ("run --users many".to_owned(), ["--users", "between 1 and"]),
        ("run --thresholds none.toml".to_owned(), ["--thresholds", "none.toml"]),
        (format!("compare {empty} {empty}"), ["report.json", "no report"]),
        (format!("render {empty}"), ["report.json", "no report"]),
        (format!("screenshot {empty}/none.html --out {empty}/a.png"), ["none.html", "cannot be opened"]),
        ("capacity --start 5 --max 2".to_owned(), ["--start 5", "--max 2"]),
        ("run --users 0".to_owned(), ["--users", "between 1 and"]),
        ("run --rate -1".to_owned(), ["--rate", "between 0.01 and 10000"]),
        ("run --rate 1e9".to_owned(), ["--rate", "between 0.01 and 10000"]),
        ("monitor --svg a.svg".to_owned(), ["--once", ""]),
        ("simulate --plan none.json".to_owned(), ["none.json", ""]),
        ("".to_owned(), ["Usage", ""]),
    ] {
        let output = loadtest(&line).output().await.unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(64), "{line}: {text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{line}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn load_goes_to_loopback_and_the_hosts_of_the_outputs_alone() {
    let live = Live::start().await;
    let output = live.run("run --quick --api https://www.example.com").await;
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("https://www.example.com"), "{}", said(&output));
    assert!(!live.reports_dir().exists(), "nothing was begun");

    // A deployment needs a key of its own, and a good one.
    let outputs = live.outputs(&live.as_deployment());
    let output = loadtest(&format!("run --quick --outputs {outputs}")).output().await.unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("--key"), "{}", said(&output));
    // An API at the end of a tunnel is not asked for through a proxy, which would not find it.
    let mut command = loadtest(&format!("run --quick --outputs {outputs} --key wrong-wrong-wrong-wrong"));
    // And where somebody's local stack is does not matter to a deployment.
    let command = command.env("http_proxy", "http://127.0.0.1:9").env("DEV_DIR", "/nowhere");
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("refuses the key"), "{}", said(&output));
    // A search on a deployment has no natural end but the operator's purse.
    let search = format!("capacity --outputs {outputs} --key {}", live.stack.api_key());
    for (flags, part) in [("", "--max-jobs is missing"), ("--max-jobs 59", "below the 60 of the first step")] {
        let output = loadtest(&format!("{search} {flags}")).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    // Only a host of the outputs is pointed elsewhere, and only to this machine.
    for (resolve, part) in
        [("example.com:127.0.0.1:8443", "no host of the outputs"), ("d1:10.0.0.1:443", "HOST:127.0.0.1:PORT")]
    {
        let line = format!("run --quick --outputs {outputs} --key k --resolve {resolve}");
        let output = loadtest(&line).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    live.stop().await;
}
