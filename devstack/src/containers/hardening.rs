//! What every running container must and must not have, as the engine sees it.

use serde_json::Value;

use super::compose::{Project, text};
use super::engine::Engine;
use super::{ContainersError, wrong};

/// The services whose images are ours: these run as the user of the Dockerfile.
const OURS: [&str; 6] = ["provision", "bedrock", "cdn", "api", "worker", "reconciler"];
const USER: &str = "10001:10001";

/// Checks every running container of the project.
///
/// # Errors
/// Names the container and what it has.
pub(super) async fn check(project: &Project, engine: &Engine) -> Result<(), ContainersError> {
    for id in project.containers(None).await? {
        let container = engine.inspect("container", &id).await?;
        let service = text(&container, "/Config/Labels/com.docker.compose.service");
        let faults = faults(&service, &container);
        if !faults.is_empty() {
            return Err(wrong(format!("the container of {service}"), faults.join("; ")));
        }
    }
    Ok(())
}

/// Returns what is wrong with one container.
fn faults(service: &str, container: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    let of = |pointer: &str| text(container, pointer);
    let number = |pointer: &str| container.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let is_ours = OURS.contains(&service);

    must(!is_ours || of("/Config/User") == USER, format!("its user is {:?} and not {USER}", of("/Config/User")));
    must(of("/HostConfig/ReadonlyRootfs") == "true", "its root can be written".into());
    must(of("/HostConfig/CapDrop").contains("ALL"), format!("it drops {} only", of("/HostConfig/CapDrop")));
    must(of("/HostConfig/Privileged") == "false", "it is privileged".into());
    must(of("/HostConfig/SecurityOpt").contains("no-new-privileges"), "it can gain privileges".into());
    must(number("/HostConfig/Memory") > 0, "its memory has no limit".into());
    must(number("/HostConfig/NanoCpus") > 0, "its CPU has no limit".into());
    must(number("/RestartCount") == 0, format!("it was restarted {} times", number("/RestartCount")));
    must(!of("/Mounts").contains("docker.sock"), "it has the engine's socket".into());
    for (port, bindings) in
        container.pointer("/HostConfig/PortBindings").and_then(Value::as_object).into_iter().flatten()
    {
        for binding in bindings.as_array().into_iter().flatten() {
            must(binding["HostIp"] == "127.0.0.1", format!("port {port} is open on {}", binding["HostIp"]));
        }
    }
    let variables = container.pointer("/Config/Env").and_then(Value::as_array).into_iter().flatten();
    let grace = variables
        .filter_map(|variable| variable.as_str()?.strip_prefix("SHUTDOWN_GRACE_SECONDS=")?.parse::<i64>().ok())
        .next();
    if let Some(grace) = grace {
        // Giving back and settling take up to 17 s after the grace (docs/operations.md, Deploys and time-outs).
        let stop = number("/Config/StopTimeout");
        must(stop >= grace + 15, format!("it is killed {stop} s after SIGTERM and drains for {grace} s"));
    }
    must(grace.is_some() || !matches!(service, "api" | "worker"), "its grace is not known".into());
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sound() -> Value {
        json!({
            "RestartCount": 0,
            "Config": { "User": USER, "StopTimeout": 60, "Env": ["SHUTDOWN_GRACE_SECONDS=35"] },
            "HostConfig": {
                "ReadonlyRootfs": true, "CapDrop": ["ALL"], "Privileged": false, "SecurityOpt": ["no-new-privileges:true"],
                "Memory": 1, "NanoCpus": 1, "PortBindings": { "8080/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "1" }] },
            },
            "Mounts": [],
        })
    }

    #[test]
    fn a_sound_container_has_no_fault_and_each_lack_is_one() {
        assert_eq!(faults("worker", &sound()), Vec::<String>::new());
        for (pointer, value, fault) in [
            ("/Config/User", json!("root"), "user"),
            ("/Config/StopTimeout", json!(36), "drains"),
            ("/Config/Env", json!([]), "grace"),
            ("/HostConfig/ReadonlyRootfs", json!(false), "root can be written"),
            ("/HostConfig/CapDrop", json!(null), "drops"),
            ("/HostConfig/Privileged", json!(true), "privileged"),
            ("/HostConfig/SecurityOpt", json!(null), "privileges"),
            ("/HostConfig/Memory", json!(0), "memory"),
            ("/HostConfig/NanoCpus", json!(0), "CPU"),
            ("/HostConfig/PortBindings/8080~1tcp/0/HostIp", json!(""), "open"),
            ("/Mounts", json!([{ "Source": "/var/run/docker.sock" }]), "socket"),
            ("/RestartCount", json!(2), "restarted"),
        ] {
            let mut container = sound();
            *container.pointer_mut(pointer).unwrap() = value;
            let found = faults("worker", &container);
            assert!(found.len() == 1 && found[0].contains(fault), "{pointer}: {found:?}");
        }
    }
}
