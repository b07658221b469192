//! A real PostgreSQL, from the packages of the system, that lives as long as this test process.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use portal::database::Database;
use sqlx::any::AnyPoolOptions;

use super::missing;

/// PostgreSQL refuses root, so a test that runs as root starts it as `nobody`.
const NOBODY: u32 = 65_534;
/// The wrapper ends the server when its standard input ends: when this process is gone, however that happens.
const SCRIPT: &str = r#"
"$1/postgres" -D "$2/data" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$2" -c fsync=off \
  -c max_connections=200 > "$2/log" 2>&1 &
server=$!
cat > /dev/null
kill -INT $server
wait $server
rm -rf "$2"
"#;

static SERVER: LazyLock<Option<Server>> = LazyLock::new(Server::start);
static DATABASES: AtomicU32 = AtomicU32::new(0);

struct Server {
    port: u16,
    _wrapper: Child,
}

/// Returns the URL of a new, empty database.
pub async fn new_database() -> Option<String> {
    let Some(server) = &*SERVER else {
        missing("the portal on PostgreSQL", "Install Debian's package postgresql");
        return None;
    };
    let url = |name: &str| format!("postgres://portal@127.0.0.1:{}/{name}", server.port);
    // Has the drivers installed.
    assert!(Database::open("none:").await.is_err());
    let started = Instant::now();
    let admin = loop {
        match AnyPoolOptions::new().max_connections(1).connect(&url("postgres")).await {
            Ok(admin) => break admin,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "PostgreSQL does not start: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let name = format!("portal_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
    admin.close().await;
    Some(url(&name))
}

impl Server {
    fn start() -> Option<Self> {
        let programs = programs()?;
        let dir = tempfile::Builder::new().prefix("portal-postgres-").tempdir().unwrap().keep();
        let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        if is_root {
            chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let as_user = |program: &Path| {
            let mut command = if is_root {
                let mut command = Command::new("setpriv");
                let id = NOBODY.to_string();
                command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program);
                command
            } else {
                Command::new(program)
            };
            command.current_dir(&dir).env("HOME", &dir);
            command
        };
        let made = as_user(&programs.join("initdb"))
            .args(["--pgdata", "data", "--username", "portal", "--auth", "trust", "--encoding", "UTF8", "--no-sync"])
            .args(["--locale", "C.UTF-8"])
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let wrapper = as_user(Path::new("/bin/sh"))
            .args(["-c", SCRIPT, "postgres"])
            .arg(&programs)
            .arg(&dir)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { port, _wrapper: wrapper })
    }
}

/// Returns the folder of the newest release that is installed. Debian keeps the server's programs off the PATH.
fn programs() -> Option<PathBuf> {
    let releases = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest =
        releases.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| number(path).is_some()).max_by_key(number);
    newest.map(|release| release.join("bin")).filter(|bin| bin.join("initdb").is_file())
}
