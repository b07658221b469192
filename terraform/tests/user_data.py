"""Renders the user data as the launch templates carry it, checks it with shellcheck and runs it against stand-ins.

usage: user_data.py SHELLCHECK      (in the folder of the configuration, after 'terraform init')
"""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

BINARY = "#!/bin/sh\nexit 0\n"
SECRETS = {"api-keys": "portal:0123456789abcdef,north:fedcba9876543210", "job-id-keys": "k" * 64}

# Commands of the host, which only write down that they were called.
STAND_INS = {
    "aws": """case "$1 $2" in
  "s3 cp") printf '%s' "$BINARY" >"${!#}" ;;
  "secretsmanager get-secret-value") case "$4" in *api-keys) printf '%s' "$API" ;; *) printf '%s' "$IDS" ;; esac ;;
  *) exit 1 ;;
esac""",
    # The first start of a service fails; only who waits for it hears of it.
    "systemctl": """case "$*" in "enable --now --no-block "*) exit 0 ;; enable*) exit 1 ;; esac""",
    # Fails as often as DNF_FAILS says.
    "dnf": """n=$(cat "$0.fails" 2>/dev/null || echo 0); echo $((n + 1)) >"$0.fails"; [ "$n" -ge "${DNF_FAILS:-0}" ]""",
    "shutdown": "",
    "sleep": "",
}


def rendered():
    """Returns the outputs of a test run: what an apply would give, with the values of the mocks."""
    command = ["terraform", "test", "-json", "-verbose", "-filter=tests/compute.tftest.hcl"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    states = [m["test_state"] for m in map(json.loads, lines) if m["type"] == "test_state" and m["@testrun"] == "worker"]
    outputs = states[0]["outputs"]
    return {name: outputs[name]["value"] for name in ("user_data", "worker_environment", "api_environment")}


def run(script, root, **environment):
    """Runs a script below `root`: paths of the host become paths in there."""
    script = re.sub(r"(?<![\w.}\"])/(etc|run|root|var|usr/local|opt)/", rf"{root}/\1/", script)
    script = script.replace(f"HOME={root}/root", "HOME=/nonexistent")
    for folder in ("etc/systemd/system", "etc/logrotate.d", "root", "run", "usr/local/bin", "usr/local/sbin", "stand-ins"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    agent = root / "opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"
    agent.parent.mkdir(parents=True, exist_ok=True)
    for path, body in [(root / "stand-ins" / name, body) for name, body in STAND_INS.items()] + [(agent, "")]:
        path.write_text(f'#!/bin/bash\necho "{path.name} $*" >>{root}/calls\n{body}\n')
        path.chmod(0o755)
    (root / "calls").write_text("")
    environment |= {"PATH": f"{root}/stand-ins:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    return done, (root / "calls").read_text()


def check_install(service, script, environment, root):
    """The script installs the release it was made for, and starts it with the settings of the output."""
    pinned = re.search(r"echo '([0-9a-f]{64})  ", script)[1]
    ours = script.replace(pinned, hashlib.sha256(BINARY.encode()).hexdigest())
    done, calls = run(ours, root, BINARY=BINARY, DNF_FAILS="2")
    assert done.returncode == 0, done.stderr
    lines = (root / f"etc/image-pipeline/{service}.env").read_text().splitlines()
    assert dict(line.split("=", 1) for line in lines) == environment, lines
    unit = (root / f"etc/systemd/system/{service}.service").read_text()
    assert unit.startswith("[Unit]\n") and unit.endswith("WantedBy=multi-user.target\n") and "%{" not in unit, unit
    agent = json.loads((root / "etc/image-pipeline/agent.json").read_text())
    assert agent["logs"]["metrics_collected"]["prometheus"]["emf_processor"]["metric_declaration"]
    assert (root / f"usr/local/bin/{service}").stat().st_mode & 0o111
    order = [line.split()[0] for line in calls.splitlines()]
    retried = ["dnf", "sleep", "dnf", "sleep", "dnf"]
    assert order == ["aws", "systemctl", "systemctl", *retried, "amazon-cloudwatch-agent-ctl"], calls
    assert f"enable --now --no-block {service}.service" in calls, calls
    return ours


def check_without_agent(service, script, root):
    """A service that runs is not shut down because its logs cannot be shipped."""
    done, calls = run(script, root, BINARY=BINARY, DNF_FAILS="99")
    assert done.returncode != 0 and f"{service} runs, but ships no logs" in done.stderr, done
    assert "enable --now" in calls and "shutdown" not in calls, calls
    assert (root / "etc/logrotate.d/image-pipeline").exists()


def check_refusal(service, script, root):
    """Whatever is not the pinned release is neither installed nor started, and the instance ends, but not at once."""
    done, calls = run(script, root, BINARY="something else")
    assert done.returncode != 0 and f"{service} is not installed" in done.stderr, done
    assert "systemctl" not in calls and not (root / f"usr/local/bin/{service}").exists(), calls
    assert calls.splitlines()[-2:] == ["sleep 60", "shutdown -h now"], calls


def check_secrets(root):
    """The values go to a file that only root reads; one that systemd would read differently is refused."""
    script = Path("templates/image-secrets.sh").read_text()
    names = {"API_KEYS_SECRET": "api-keys", "JOB_ID_KEYS_SECRET": "job-id-keys"}
    done, _ = run(script, root, API=SECRETS["api-keys"], IDS=SECRETS["job-id-keys"], **names)
    assert done.returncode == 0, done.stderr
    written = root / "run/image-pipeline/secrets.env"
    expected = f"API_KEYS='{SECRETS['api-keys']}'\nJOB_ID_KEYS='{SECRETS['job-id-keys']}'\n"
    assert written.read_text() == expected and stat.S_IMODE(written.stat().st_mode) == 0o600
    for bad in ("", "portal:it's", "portal:a b", "portal:a\nb", "portal:\\a", 'portal:"a"', "portal:$a"):
        done, _ = run(script, root, API=bad, IDS=SECRETS["job-id-keys"], **names)
        assert done.returncode == 1 and "image-secrets: a secret, API_KEYS," in done.stderr, (bad, done)
        assert bad == "" or bad not in done.stderr, "a secret is in the message"
    assert written.read_text() == expected, "a refused value replaced a good one"
    done, _ = run(script, root, API="sk-0123456789", IDS="", OPENAI_API_KEY_SECRET="api-keys")
    assert done.returncode == 0 and written.read_text() == "OPENAI_API_KEY='sk-0123456789'\n", done


def check_webhook_secrets(root):
    """The JSON goes to a file that only root reads, in one line; one that systemd would read differently is refused."""
    script = Path("templates/image-webhook-secrets.sh").read_text()
    good = '{"north": {"url": "https://n.example/hook?a=$b",\n"secrets": ["whsec_a+/="]}}'
    done, _ = run(script, root, IDS=good, WEBHOOKS_SECRET="webhooks")
    assert done.returncode == 0, done.stderr
    written = root / "run/image-pipeline/webhooks.env"
    expected = "WEBHOOKS='" + good.replace("\n", "") + "'\n"
    assert written.read_text() == expected and stat.S_IMODE(written.stat().st_mode) == 0o600, written.read_text()
    for bad in ("", '{"it\'s": 1}', '{"a": "\\u0062"}'):
        done, _ = run(script, root, IDS=bad, WEBHOOKS_SECRET="webhooks")
        assert done.returncode == 1 and "image-webhook-secrets: the secret" in done.stderr, (bad, done)
    assert written.read_text() == expected, "a refused value replaced a good one"


def main():
    shellcheck = sys.argv[1]
    outputs = rendered()
    with tempfile.TemporaryDirectory() as folder:
        for service, script in outputs["user_data"].items():
            file = Path(folder) / f"{service}.sh"
            file.write_text(script)
            scripts = ["templates/image-secrets.sh", "templates/image-webhook-secrets.sh"]
            subprocess.run([shellcheck, "--severity=style", file, *scripts], check=True)
            environment = outputs[f"{service.removeprefix('image-')}_environment"]
            ours = check_install(service, script, environment, Path(folder) / service)
            check_without_agent(service, ours, Path(folder) / f"{service}-without-agent")
            check_refusal(service, script, Path(folder) / f"{service}-refused")
            print(f"{service}: {len(script)} bytes of user data, shellcheck-clean, installs, and refuses and shuts down")
        check_secrets(Path(folder) / "secrets")
        check_webhook_secrets(Path(folder) / "webhook-secrets")
        print("image-secrets: writes for root alone, refuses what systemd would read differently")


main()
