//! State files that are old, corrupt, newer, unwritable or another user's.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{DEVPORT, TestEnv, number, port, until};

/// A record as the first devport writes it.
fn first_record(port: u16, cwd: &str) -> String {
    format!(
        "{{\n  \"hash\": \"c1b7024794\",\n  \"hashid\": \"c1b\",\n  \"key\": \"myapp\",\n  \"port\": {port},\n  \"tailnet\": false,\n  \"cwd\": \"{cwd}\",\n  \"cmd\": [\n    \"sh\",\n    \"-c\",\n    \"exec sleep 1000\"\n  ],\n  \"env\": [\n    \"PATH=/usr/bin:/bin\",\n    \"OLD=yes\"\n  ],\n  \"last_up\": \"2026-11-20T23:56:01.78005344-05:00\",\n  \"state\": \"error\",\n  \"error\": \"secret pane text\",\n  \"extra\": {{\"kept\": true}}\n}}"
    )
}

fn plant(env: &TestEnv, text: &str) -> std::path::PathBuf {
    for name in ["services", "locks"] {
        fs::create_dir_all(env.state(name)).unwrap();
        fs::set_permissions(env.state(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = env.state("services/c1b7024794.json");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(env.state("locks/c1b7024794.lock"), "").unwrap();
    fs::write(env.state("locks/register.lock"), "").unwrap();
    path
}

fn mode(path: impl AsRef<std::path::Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_directory_of_the_first_devport_just_works() {
    let env = TestEnv::new();
    let path = plant(&env, &first_record(env.first_port + 5, "/tmp"));
    let listed = env.devport(["ls"]).ok();
    let view = &listed.json()[0];
    assert_eq!(
        (view["state"].as_str(), view["last_up"].as_str()),
        (Some("stopped"), Some("2026-11-21T04:56:01.78005344Z"))
    );
    assert!(!listed.stdout.contains("secret pane text"));
    assert_eq!(fs::read_to_string(&path).unwrap(), first_record(env.first_port + 5, "/tmp"), "listing writes nothing");
    let started = env.devport(["start", "c1b"]).ok().json();
    assert_eq!((started["state"].as_str(), port(&started)), (Some("running"), env.first_port + 5));
    let environment = || fs::read_to_string(format!("/proc/{}/environ", started["pid"])).unwrap();
    // While the shell executes `sleep`, its environment cannot be read.
    until("it has the environment of the record", || environment().contains("OLD=yes\0"));
    env.devport(["stop", "myapp"]).ok();
    env.devport(["-C", "/tmp", "start", "--key", "myapp", "--", "sleep", "1000"]).ok();
    let record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((record["extra"]["kept"].as_bool(), record["hashid"].as_str()), (Some(true), Some("c1b")));
    for field in ["hash", "hashid", "key", "port", "tailnet", "cwd", "cmd", "env", "last_up"] {
        assert!(record.get(field).is_some(), "the first devport needs {field}");
    }
    assert_eq!((mode(&path), mode(env.state("services"))), (0o600, 0o700));
}

#[test]
fn files_are_private_whatever_the_umask() {
    for umask in ["000", "077", "0277"] {
        let env = TestEnv::new();
        let script = format!("umask {umask}; exec {DEVPORT} start --key a -- sleep 1000");
        env.finish(env.command("sh").args(["-c", &script])).ok();
        env.start("a", &["sleep", "1000"]);
        for name in ["", "services", "run", "locks", "logs"] {
            let path = env.state(name);
            assert_eq!(mode(&path), 0o700, "{umask}: {}", path.display());
            for entry in fs::read_dir(&path).unwrap().flatten().filter(|entry| entry.path().is_file()) {
                assert_eq!(mode(entry.path()), 0o600, "{umask}: {}", entry.path().display());
            }
        }
    }
}

#[test]
fn directories_above_the_state_directory_are_private_whatever_the_umask() {
    for umask in ["000", "0277", "0777"] {
        let env = TestEnv::new();
        let script = format!("umask {umask}; exec {DEVPORT} reserve --key a");
        env.finish(env.command("sh").args(["-c", &script]).env_remove("DEVPORT_HOME")).ok();
        for name in [".local", ".local/share", ".local/share/devport", ".local/share/devport/services"] {
            assert_eq!(mode(env.path("home").join(name)), 0o700, "{umask}: {name}");
        }
    }
}

#[test]
fn a_directory_with_other_files_is_not_made_private() {
    let mut env = TestEnv::new();
    let shared = env.path("shared");
    fs::create_dir_all(shared.join("photos")).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    env.set("DEVPORT_HOME", shared.to_str().unwrap());
    for _ in 0..2 {
        env.devport(["reserve", "--key", "a"]).fails(1, &["could not make private", "other files are in it"]);
    }
    assert_eq!((mode(&shared), fs::read_dir(&shared).unwrap().count()), (0o755, 1));
}

#[test]
fn a_corrupt_record_is_named_left_alone_and_keeps_its_place() {
    let env = TestEnv::new();
    let a = env.start("a", &["sleep", "1000"]);
    env.start("b", &["sleep", "1000"]);
    let path = env.state(&format!("services/{}.json", a["hash"].as_str().unwrap()));
    let whole = fs::read(&path).unwrap();
    for corrupt in [&whole[..whole.len() - 3], b"", b"{}", b"null", b"\xff\xfe", &whole[..20]] {
        fs::write(&path, corrupt).unwrap();
        let listed = env.devport(["ls"]).ok();
        assert_eq!(listed.json().as_array().unwrap().len(), 1);
        assert!(listed.stderr.contains(path.to_str().unwrap()), "{listed:?}");
        env.devport(["start", "--key", "a", "--", "true"])
            .fails(1, &[path.to_str().unwrap(), "could not use the record"]);
        env.devport(["rm", "a"]).fails(1, &["could not use the record"]);
        assert_eq!(fs::read(&path).unwrap(), corrupt);
    }
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert_eq!(port(&env.start("c", &["sleep", "1000"])), env.first_port + 2, "its port stays taken");
    fs::write(&path, &whole).unwrap();
    assert_eq!(env.which("a")["state"], "running");
}

#[test]
fn files_that_are_not_records_are_reported() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    fs::create_dir(env.state("services/aaaaaaaaaa.json")).unwrap();
    fs::write(env.state("services/notes.json"), "{}").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", env.state("services/bbbbbbbbbb.json")).unwrap();
    let listed = env.devport(["ls"]).ok();
    assert_eq!(listed.json().as_array().unwrap().len(), 1);
    for name in ["aaaaaaaaaa.json", "notes.json", "bbbbbbbbbb.json"] {
        assert!(listed.stderr.contains(name), "{name}: {listed:?}");
    }
}

#[test]
fn a_newer_record_is_read_and_never_written() {
    let env = TestEnv::new();
    let text = first_record(env.first_port, "/tmp").replace("\"hash\":", "\"schema\": 99,\n  \"hash\":");
    let path = plant(&env, &text);
    assert_eq!(env.which("myapp")["port"], env.first_port);
    env.devport(["-C", "/tmp", "start", "--key", "myapp", "--", "true"]).fails(1, &["newer devport", "upgrade"]);
    env.devport(["rm", "myapp"]).fails(1, &["newer devport"]);
    // It is registered, so it can be started and stopped.
    env.devport(["start", "myapp"]).ok();
    env.devport(["stop", "myapp"]).ok();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn stray_temporary_files_are_swept() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    let hash = env.which("a")["hash"].as_str().unwrap().to_owned();
    let stray = [env.state(&format!("services/.tmp-{hash}-x")), env.state(&format!("run/.tmp-{hash}-x"))];
    for path in &stray {
        fs::write(path, "half a").unwrap();
    }
    env.devport(["restart", "a"]).ok();
    env.start("b", &["sleep", "1000"]);
    assert!(stray.iter().all(|path| !path.exists()));
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let mut env = TestEnv::new();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let theirs = env.path("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(12345), None).unwrap();
    env.set("DEVPORT_HOME", theirs.to_str().unwrap());
    env.devport(["start", "--key", "a", "--", "true"]).fails(1, &["belongs to user 12345", "DEVPORT_HOME"]);
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0);
}

/// A small file system; `None` where this user may not mount one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"])
            .arg(&path)
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_reading_and_stopping_still_work() {
    let mut env = TestEnv::new();
    let Some(disk) = SmallDisk::mount(env.path("disk")) else { return };
    env.set("DEVPORT_HOME", disk.0.join("state").to_str().unwrap());
    let view = env.start("a", &["sh", "-c", "echo hello; exec sleep 1000"]);
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains("hello"));
    let record = disk.0.join(format!("state/services/{}.json", view["hash"].as_str().unwrap()));
    let before = fs::read(&record).unwrap();
    let _ = fs::write(disk.0.join("filler"), vec![0; 512 * 1024]);
    env.devport(["start", "--key", "b", "--", "sleep", "1000"])
        .fails(1, &["no space left on device", "free some space"]);
    assert_eq!(fs::read(&record).unwrap(), before);
    assert_eq!(env.ls().len(), 1);
    assert_eq!(number(&env.which("a")["pid"]), number(&view["pid"]));
    assert!(env.devport(["logs", "a"]).ok().stdout.contains("hello"));
    env.devport(["stop", "a"]).ok();
    assert_eq!(env.which("a")["status"], "stopped");
    fs::remove_file(disk.0.join("filler")).unwrap();
    assert_eq!(env.devport(["start", "a"]).ok().json()["port"], view["port"]);
    env.devport(["stop", "a"]).ok();
}

/// Holds a lock of the registry until it is killed.
fn hold(env: &TestEnv, name: &str) -> std::process::Child {
    let script = "import fcntl,sys,time; f=open(sys.argv[1],'a'); fcntl.flock(f,fcntl.LOCK_EX); print('held',flush=True); time.sleep(1000)";
    let mut command = env.command("python3");
    let mut child =
        command.args(["-c", script]).arg(env.state(name)).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "held\n");
    child
}

#[test]
fn a_busy_registry_is_waited_for_and_reported() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    let mut holder = hold(&env, "locks/register.lock");
    let mut waiting = env.spawn(["start", "--key", "b", "--", "sleep", "1000"]);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(waiting.stderr.take().unwrap()), &mut line).unwrap();
    assert!(line.contains("waiting for the registry's lock, held by"), "{line}");
    assert!(waiting.try_wait().unwrap().is_none());
    // Supervisors and readers never wait for the lock.
    env.devport(["stop", "a"]).ok();
    assert_eq!(env.ls().len(), 1);
    holder.kill().unwrap();
    holder.wait().unwrap();
    crate::support::done(waiting).ok();
    assert_eq!(env.which("b")["state"], "running");
}

#[test]
fn a_lock_that_no_devport_holds_is_named_by_what_needs_it() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    env.devport(["stop", "a"]).ok();
    let mut holder = hold(&env, &format!("locks/{}.lock", view["hash"].as_str().unwrap()));
    assert_eq!(env.which("a")["status"], "stopped");
    env.devport(["start", "a"]).fails(1, &["the service's lock is still held by a process that it does not name"]);
    env.devport(["rm", "a"]).fails(1, &["its lock is held, but names no process that holds it"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    env.devport(["start", "a"]).ok();
}
