//! The ways to a guest: the user's own ssh by `bg-ssh --config`, and the ports that a guest listens on.

#![allow(clippy::disallowed_types)]

use super::world::{World, boot, show};
use crate::support::netns::Namespace;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The user's own programs, with what `bg-ssh --config` printed and none of banger's variables.
struct OwnSsh<'a> {
    world: &'a World,
    config: PathBuf,
}

impl<'a> OwnSsh<'a> {
    fn new(world: &'a World) -> Self {
        let config = world.path().join("ssh_config");
        std::fs::write(&config, world.ok("bg-ssh", &["--config"])).unwrap();
        OwnSsh { world, config }
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(&self.config).args(args);
        self.bare(&mut command);
        command
    }

    /// Without the environment in which the tools were called.
    fn bare(&self, command: &mut Command) {
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.world.path());
        command.current_dir(self.world.path()).stdin(Stdio::null());
    }

    #[track_caller]
    fn ok(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program, args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", show(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

#[test]
fn without_a_card() {
    let world = World::new();
    world.boot("dev");
    let ssh = OwnSsh::new(&world);
    ssh_passes_everything_through(&ssh);
    files_are_copied(&ssh);
    rsync_copies(&ssh);
    let nobody = ssh.command("ssh", &["nobody.vm", "true"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(255), "{}", show(&nobody));
    assert!(show(&nobody).contains("there is no VM `nobody`"), "{}", show(&nobody));

    let by_card = world.run("bg-ssh", &["dev", "--via", "tap", "--", "true"]);
    assert_eq!(by_card.status.code(), Some(69), "{}", show(&by_card));
    assert!(show(&by_card).contains("has no network card"), "{}", show(&by_card));
    assert_eq!(world.ok("bg-ssh", &["dev.vm", "--via", "vsock", "--", "hostname"]), "dev\n");

    listen(&world);
    ports_are_listed(&world);
    a_forward_leads_there(&world);
    swap_key(&world);
    another_key_is_refused(&ssh);
}

/// A world and the namespace in which its network is.
struct Net<'a> {
    world: &'a World,
    netns: &'a Namespace,
}

impl Net<'_> {
    fn run(&self, tool: &str, args: &[&str]) -> Output {
        self.world.command_in(self.netns, tool, args).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, tool: &str, args: &[&str]) -> String {
        let output = self.run(tool, args);
        assert!(output.status.success(), "{tool} {args:?}: {}", show(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The user's own ssh, inside.
    fn ssh(&self, ssh: &OwnSsh<'_>, args: &[&str]) -> Output {
        let mut command = self.netns.command("ssh", &["-F", &ssh.config.display().to_string()]);
        ssh.bare(command.args(args));
        command.output().unwrap()
    }
}

#[test]
fn over_a_tap() {
    let Some(netns) = Namespace::new("over_a_tap") else { return };
    let world = World::new();
    let net = Net { world: &world, netns: &netns };
    net.ok("bg-tap", &["up"]);
    net.ok("bg-vm", &["create", "dev", "--net", "--memory", "512M", "--work-size", "2G"]);
    // Right away: the wait for a guest that boots is the same by TCP.
    let line = "echo $SSH_CONNECTION";
    let timeout = boot();
    let boot = ["--connect-timeout", &timeout];
    let by_card = net.ok("bg-ssh", &[&["dev", "--via", "tap"], &boot[..], &["--", line]].concat());
    world.healthy("dev");
    let document = world.json("bg-vm", &["show", "dev"]);
    let address = document["net"]["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
    let (card, loopback) = (format!(" {address} 22"), " 127.0.0.1 22");
    assert!(by_card.trim().ends_with(&card), "{by_card}");

    let ssh = OwnSsh::new(&world);
    let inside = |way: &str| net.ok("bg-ssh", &["dev", "--via", way, "--", line]).trim().to_owned();
    assert!(inside("auto").ends_with(&card) && inside("vsock").ends_with(loopback));
    let own = net.ssh(&ssh, &["dev.vm", line]);
    assert!(String::from_utf8_lossy(&own.stdout).trim().ends_with(&card), "{}", show(&own));
    assert!(world.guest("dev", line).ends_with(loopback), "outside of the namespace it is vsock");
    assert!(ssh.ok("ssh", &["dev.vm", line]).ends_with(loopback));
    let elsewhere = world.run("bg-ssh", &["dev", "--via", "tap", "--", "true"]);
    assert_eq!(elsewhere.status.code(), Some(69), "{}", show(&elsewhere));
    assert!(show(&elsewhere).contains("another network namespace"), "{}", show(&elsewhere));

    listen(&world);
    let listed = net.ok("bg-vm", &["ports", "dev"]);
    let served = port(&listed, 8000, "0.0.0.0");
    assert_eq!((&served["reach"], &served["hint"]), (&format!("{address}:8000").into(), &Value::Null));
    let reach: std::net::SocketAddr = served["reach"].as_str().unwrap().parse().unwrap();
    assert_eq!(netns.inside(|| said(TcpStream::connect(reach))), "hello\n", "what is listed can be used");
    assert_eq!(port(&listed, 8002, "0.0.0.0")["reach"], format!("{address}:8002"));
    assert_eq!(port(&listed, 8001, "127.0.0.1")["hint"], "bg-ssh -L 8001:127.0.0.1:8001 dev");
    let outside = world.ok("bg-vm", &["ports", "dev"]);
    assert_eq!(port(&outside, 8000, "0.0.0.0")["hint"], "bg-ssh -L 8000:localhost:8000 dev");

    swap_key(&world);
    for way in ["tap", "auto", "vsock"] {
        is_refused(&net.run("bg-ssh", &["dev", "--via", way, "--", "echo entered"]));
    }
    is_refused(&net.ssh(&ssh, &["dev.vm", "echo entered"]));
    net.ok("bg-vm", &["rm", "--force", "dev"]);
    net.ok("bg-tap", &["down"]);
}

fn ssh_passes_everything_through(ssh: &OwnSsh<'_>) {
    assert_eq!(ssh.ok("ssh", &["dev.vm", "hostname"]), "dev");
    assert_eq!(ssh.command("ssh", &["dev.vm", "exit 7"]).status().unwrap().code(), Some(7));
    // The socket is ssh's own: bytes go through whole both ways, and the end of the input is handed on.
    let much: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut cat = ssh.command("ssh", &["dev.vm", "cat"]);
    let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(&much).unwrap();
            drop(stdin);
        });
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success() && output.stdout == much, "{} bytes came back", output.stdout.len());
}

fn files_are_copied(ssh: &OwnSsh<'_>) {
    let local = |name: &str| ssh.world.path().join(name);
    let much: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 241) as u8).collect();
    std::fs::write(local("up"), &much).unwrap();
    ssh.ok("scp", &["-q", "up", "dev.vm:/root/up"]);
    ssh.ok("scp", &["-q", "dev.vm:/root/up", "down"]);
    assert_eq!(std::fs::read(local("down")).unwrap(), much);
    std::fs::write(local("batch"), "put up other\nget other again\n").unwrap();
    ssh.ok("sftp", &["-q", "-b", "batch", "dev.vm"]);
    assert_eq!(std::fs::read(local("again")).unwrap(), much);
}

/// With the host's rsync in the guest, which has none of its own.
fn rsync_copies(ssh: &OwnSsh<'_>) {
    let find = |program: &str| Command::new("which").arg(program).output().is_ok_and(|o| o.status.success());
    if !find("rsync") {
        crate::support::not_run("rsync over a VM's ssh", "rsync is not installed");
        return;
    }
    let which = String::from_utf8(Command::new("which").arg("rsync").output().unwrap().stdout).unwrap();
    let linked = String::from_utf8(Command::new("ldd").arg(which.trim()).output().unwrap().stdout).unwrap();
    // All but the C library's own, which have to be the guest's.
    let libraries = linked.lines().filter_map(|l| l.split_whitespace().nth(2)).filter(|l| !l.contains("/libc."));
    ssh.ok("ssh", &["dev.vm", "mkdir /root/rsync"]);
    let files: Vec<&str> = [which.trim()].into_iter().chain(libraries.filter(|l| l.starts_with('/'))).collect();
    ssh.ok("scp", &[&["-q"], &files[..], &["dev.vm:/root/rsync/"]].concat());
    std::fs::create_dir_all(ssh.world.path().join("tree/below")).unwrap();
    std::fs::write(ssh.world.path().join("tree/below/file"), "content").unwrap();
    let mut command = Command::new(which.trim());
    ssh.bare(&mut command);
    command.args(["-a", "--rsync-path=LD_LIBRARY_PATH=/root/rsync /root/rsync/rsync", "-e"]);
    let output = command.arg(format!("ssh -F {}", ssh.config.display())).args(["tree", "dev.vm:/root/"]).output();
    assert!(output.as_ref().is_ok_and(|o| o.status.success()), "{output:?}");
    assert_eq!(ssh.world.guest("dev", "cat /root/tree/below/file"), "content");
}

/// In the guest: a server on all addresses (8000), one on the loopback interface (8001), and one for UDP (8002).
fn listen(world: &World) {
    let tcp = |address: &str, port: u16| {
        format!(
            "systemd-run -q perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalAddr => \"{address}\", \
             LocalPort => {port}, Listen => 5) or die; while (my $c = $s->accept) {{ print $c \"hello\\n\"; close $c }}'"
        )
    };
    let udp = "systemd-run -q perl -MIO::Socket::INET -e \
               'my $s = IO::Socket::INET->new(LocalPort => 8002, Proto => \"udp\") or die; sleep 1000'";
    for line in [&tcp("0.0.0.0", 8000), &tcp("127.0.0.1", 8001), udp] {
        world.guest("dev", line);
    }
    world.until("the guest's listeners", || {
        let listed = world.ok("bg-vm", &["ports", "dev"]);
        (8000..=8002).all(|port| listed.contains(&format!("\"port\":{port},")))
    });
}

/// The document of a port.
fn port(listed: &str, port: u16, address: &str) -> Value {
    let documents = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found = documents.filter(|d| d["port"] == port && d["address"] == address);
    found.next().unwrap_or_else(|| panic!("no port {port}: {listed}"))
}

fn ports_are_listed(world: &World) {
    let listed = world.ok("bg-vm", &["ports", "dev"]);
    for (number, address, process, hint) in [
        (22, "0.0.0.0", "sshd", "bg-ssh dev".into()),
        (22, "::", "sshd", "bg-ssh dev".into()),
        (8000, "0.0.0.0", "perl", Value::from("bg-ssh -L 8000:localhost:8000 dev")),
        (8001, "127.0.0.1", "perl", "bg-ssh -L 8001:127.0.0.1:8001 dev".into()),
        (8002, "0.0.0.0", "perl", Value::Null),
    ] {
        let found = port(&listed, number, address);
        assert_eq!(
            (&found["process"], &found["hint"], &found["reach"]),
            (&process.into(), &hint, &Value::Null),
            "{found}"
        );
        assert_eq!(found["protocol"], if number == 8002 { "udp" } else { "tcp" });
        let pid = world.guest("dev", &format!("cat /proc/{}/comm", found["pid"]));
        assert_eq!(pid, process);
    }
    assert!(!listed.contains("guest-agent"), "{listed}");
    let document = world.ok("bg-vm", &["show", "dev"]);
    let piped = world.pipe("bg-vm", &["ports", "--output", "table"], document.as_bytes());
    let table = show(&piped);
    assert!(table.contains("dev  tcp       127.0.0.1:8001  perl ("), "{table}");
}

fn a_forward_leads_there(world: &World) {
    // Free a moment ago, which is as much as a test can know.
    let local = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let spec = format!("{}:127.0.0.1:8001", local.port());
    let mut session =
        world.command("bg-ssh", &["-L", &spec, "dev", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    world.until("the forwarded port", || said(TcpStream::connect(local)) == "hello\n");
    let taken = world.run("bg-ssh", &["-L", &spec, "dev", "--", "true"]);
    assert_eq!(taken.status.code(), Some(255), "a port that is taken: {}", show(&taken));
    drop(session.stdin.take());
    assert!(session.wait().unwrap().success());
}

fn said(stream: std::io::Result<TcpStream>) -> String {
    let mut text = String::new();
    let _ = stream.and_then(|mut stream| stream.read_to_string(&mut text));
    text
}

/// Gives the guest's sshd another host key than the host made.
fn swap_key(world: &World) {
    let key = "/etc/ssh/ssh_host_ed25519_key";
    world.guest("dev", &format!("rm {key}* && ssh-keygen -q -t ed25519 -N '' -f {key} && systemctl restart ssh"));
}

#[track_caller]
fn is_refused(output: &Output) {
    assert_eq!(output.status.code(), Some(255), "{}", show(output));
    assert!(show(output).contains("Host key verification failed"), "{}", show(output));
    assert!(output.stdout.is_empty(), "{}", show(output));
}

fn another_key_is_refused(ssh: &OwnSsh<'_>) {
    let output = ssh.command("ssh", &["dev.vm", "echo entered"]).output().unwrap();
    is_refused(&output);
    assert!(show(&output).contains("REMOTE HOST IDENTIFICATION HAS CHANGED"), "{}", show(&output));
    // Nor with another spelling, or a port.
    for args in [&["-p", "2222", "dev.vm", "echo entered"][..], &["root@DEV.vm", "echo entered"]] {
        let output = ssh.command("ssh", args).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}: {}", show(&output));
    }
    let output = ssh.command("scp", &["-q", "dev.vm:/etc/hostname", "copied"]).output().unwrap();
    assert!(!output.status.success() && !ssh.world.path().join("copied").exists(), "{}", show(&output));
    let refused = ssh.world.run("bg-ssh", &["dev", "--", "echo entered"]);
    is_refused(&refused);
    assert!(show(&refused).contains("`bg-vm restart dev` gives `dev` its own key again"), "{}", show(&refused));
}
