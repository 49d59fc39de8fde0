//! `pipelines/customize`: a shell in a clone, and an image of what it leaves if the user says so.

#![allow(clippy::disallowed_types)]

use super::world::World;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A session on a terminal of its own, as script(1) gives one.
struct Typist {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Typist {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut chunk) {
                let _ = send.send(chunk[..n].to_vec());
            }
        });
        Typist { child, keys, screen, seen: String::new() }
    }

    /// Waits until the screen shows `text` behind what was waited for before.
    fn wait(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let more = self.screen.recv_timeout(Duration::from_secs(240));
            let more = more.unwrap_or_else(|e| panic!("{text:?} does not come ({e}): {}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&more));
        }
        self.seen.drain(..self.seen.find(text).unwrap() + text.len());
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The status at the end.
    fn end(mut self) -> Option<i32> {
        drop(self.keys);
        self.child.wait().unwrap().code()
    }
}

fn customize(world: &World, args: &str) -> Typist {
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/customize");
    let mut command = world.program("script");
    command.args(["-qefc", &format!("{} {args}", pipeline.display()), "/dev/null"]);
    command.env("BG_CACHE_DIR", world.path().join("cache"));
    Typist::start(command.env("BG_MEMORY", "512M"))
}

#[test]
fn what_a_shell_in_a_clone_leaves_is_an_image_only_if_its_user_says_so() {
    let world = World::new();
    let mut typist = customize(&world, "debian mine");
    typist.wait("throwaway clone of `debian`");
    typist.wait("# ");
    typist.press("echo by hand >/srv/mark; echo mine >/root/.mark; hostname\r");
    typist.wait("build-");
    typist.press("exit\r");
    typist.wait("[y/N]");
    typist.press("y\r");
    assert_eq!(typist.end(), Some(0));
    let image = world.json("bg-image", &["show", "mine"]);
    assert_eq!(image["build"]["steps"][0]["kind"], "shell");
    assert_eq!(image["seed"]["sizes"].as_array().unwrap().len(), 2);
    assert_eq!(
        image["rootfs"]["manifest_digest"],
        world.json("bg-image", &["show", "debian"])["rootfs"]["manifest_digest"]
    );
    world.ok("bg-vm", &["create", "dev", "--image", "mine", "--memory", "512M", "--work-size", "2G"]);
    world.healthy("dev");
    assert_eq!(
        world.guest("dev", "cat /srv/mark /root/.mark; ls /root/.bash_history 2>/dev/null | wc -l"),
        "by hand\nmine\n0"
    );
    world.ok("bg-vm", &["rm", "--force", "dev"]);

    let mut typist = customize(&world, "debian other");
    typist.wait("# ");
    typist.press("\u{4}");
    typist.wait("[y/N]");
    typist.press("n\r");
    assert_eq!(typist.end(), Some(1));
    assert_eq!(world.run("bg-image", &["show", "other"]).status.code(), Some(64), "nothing was kept");
    assert_eq!(world.ok("bg-vm", &["ls", "--output", "json"]), "");
}
