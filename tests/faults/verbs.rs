//! The verbs that are attacked: what each begins with, and what holds after it was cut short.

use super::trace::{self, Point};
use crate::running::World;
use crate::support::fixture::{self, Files, WORK};

/// The sample of a verb that takes a second or less. A guest that does not answer is waited for.
pub const SAMPLE: usize = 12;
pub const SLOW_SAMPLE: usize = 4;

/// A verb, and the world around it.
pub struct Verb {
    pub tool: &'static str,
    pub args: &'static [&'static str],
    /// Makes what the verb begins with, whatever is there. Gives its stdin.
    pub before: fn(&World) -> String,
    /// What holds after it was cut short and collected, and does the same again.
    pub after: fn(&World, &str),
    /// Whether the programs that it starts end with it.
    pub children: bool,
    /// Whether it fails, and undoes what it began.
    pub fails: bool,
    /// How many points are tried, unless all are.
    pub sample: usize,
}

pub fn show(world: &World, vm: &str) -> Option<String> {
    let there = world.sandbox.state(&format!("machines/{vm}")).exists();
    there.then(|| world.state_of(vm))
}

pub fn is_whole(world: &World, vm: &str, what: &str) {
    assert_eq!(show(world, vm).as_deref(), Some("stopped"), "{what}");
    assert_eq!(world.sandbox.run("bg-seed", &["check", "--vm", vm], "").json()["ok"], true, "{what}");
}

pub fn without_dev(world: &World) -> String {
    world.vm(&["rm", "--force", "dev"], "").ok();
    without_key(world)
}

pub fn with_dev(world: &World) -> String {
    if show(world, "dev").is_none() {
        fixture::create(&world.sandbox, "dev");
    }
    world.vm(&["kill", "dev"], "").ok();
    without_key(world)
}

/// A store whose own SSH key has yet to be made, as the first start does.
pub fn without_key(world: &World) -> String {
    let keys = world.sandbox.state("ssh");
    if keys.exists() {
        std::fs::remove_dir_all(keys).unwrap();
    }
    String::new()
}

pub fn with_dev_running(world: &World) -> String {
    with_dev(world);
    world.vm(&["start", "dev"], "").ok();
    String::new()
}

pub fn document(world: &World) -> String {
    let files = world.sandbox.path("files-other");
    if files.exists() {
        std::fs::remove_dir_all(files).unwrap();
    }
    Files::new(&world.sandbox, "other").document().to_string()
}

pub const CREATE: Verb = Verb {
    tool: "bg-vm",
    args: &["create", "dev", "--work-size", WORK, "--no-start"],
    before: without_dev,
    after: |world, what| {
        if show(world, "dev").is_none() {
            fixture::create(&world.sandbox, "dev");
        }
        is_whole(world, "dev", what);
    },
    children: true,
    fails: false,
    sample: SAMPLE,
};

/// With its start in one.
pub const CREATE_AND_START: Verb = Verb {
    args: &["create", "dev", "--work-size", WORK],
    after: |world, what| {
        // One that is whole and was killed before it told the shim to keep the VM has a VM that has run, and ended.
        let state = show(world, "dev");
        assert!(matches!(state.as_deref(), None | Some("stopped" | "running" | "crashed")), "{state:?}: {what}");
        if show(world, "dev").is_none() {
            fixture::create(&world.sandbox, "dev");
        }
        world.vm(&["start", "dev"], "").ok();
        assert_eq!(show(world, "dev").as_deref(), Some("running"), "{what}");
    },
    children: false,
    ..CREATE
};

pub const START: Verb = Verb {
    tool: "bg-vm",
    args: &["start", "dev"],
    before: with_dev,
    after: |world, what| {
        assert!(matches!(show(world, "dev").as_deref(), Some("stopped" | "running")), "{what}");
        world.vm(&["start", "dev"], "").ok();
        assert_eq!(show(world, "dev").as_deref(), Some("running"), "{what}");
    },
    children: false,
    fails: false,
    sample: SAMPLE,
};

pub const STOP: Verb = Verb {
    tool: "bg-vm",
    args: &["stop", "--timeout", "1", "dev"],
    before: with_dev_running,
    after: |world, what| {
        assert!(matches!(show(world, "dev").as_deref(), Some("stopped" | "running")), "{what}");
        world.vm(&["stop", "--timeout", "1", "dev"], "").ok();
        assert_eq!(show(world, "dev").as_deref(), Some("stopped"), "{what}");
    },
    children: false,
    fails: false,
    sample: SLOW_SAMPLE,
};

pub const RM: Verb = Verb {
    tool: "bg-vm",
    args: &["rm", "dev"],
    before: with_dev,
    after: |world, what| {
        if show(world, "dev").is_some() {
            is_whole(world, "dev", what);
        }
        world.vm(&["rm", "dev"], "").ok();
        assert_eq!(show(world, "dev"), None, "{what}");
    },
    children: true,
    fails: false,
    sample: SAMPLE,
};

pub const RM_RUNNING: Verb = Verb {
    args: &["rm", "--force", "dev"],
    before: with_dev_running,
    after: |world, what| {
        assert!(matches!(show(world, "dev").as_deref(), None | Some("stopped" | "running")), "{what}");
        world.vm(&["rm", "--force", "dev"], "").ok();
        assert_eq!(show(world, "dev"), None, "{what}");
    },
    ..RM
};

pub const SEED_BUILD: Verb = Verb {
    tool: "bg-seed",
    args: &["build", "debian", "--size", WORK],
    before: |_| String::new(),
    after: |world, what| {
        world.sandbox.run("bg-seed", &["build", "debian", "--size", WORK], "").ok();
        assert_eq!(world.sandbox.run("bg-seed", &["check", "debian"], "").json()["ok"], true, "{what}");
    },
    children: true,
    fails: false,
    sample: SAMPLE,
};

pub const SEED_CLONE: Verb = Verb {
    tool: "bg-seed",
    args: &["clone"],
    before: |world| {
        without_dev(world);
        fixture::plan(&world.sandbox, "dev")
    },
    after: |world, what| {
        assert_eq!(show(world, "dev"), None, "{what}");
        world.sandbox.run("bg-seed", &["clone"], fixture::plan(&world.sandbox, "dev")).ok();
    },
    children: true,
    fails: false,
    sample: SAMPLE,
};

pub const REGISTER: Verb = Verb {
    tool: "bg-register",
    args: &["--name", "other", "--replace"],
    before: document,
    after: |world, _| {
        world.sandbox.run("bg-register", &["--name", "other", "--replace"], document(world)).ok();
        let mut again = world.sandbox.run("bg-image", &["show", "other"], "").json();
        again["name"] = "again".into();
        world.sandbox.run("bg-register", &["--replace"], again.to_string()).ok();
    },
    children: true,
    fails: false,
    sample: SAMPLE,
};

/// One that fails at its VMM, when all else is done, and undoes it.
pub const CREATE_AND_FAIL: Verb = Verb {
    before: |world| {
        world.set_mode("refuses");
        without_dev(world)
    },
    after: |world, what| {
        assert_eq!(show(world, "dev"), None, "{what}");
        world.set_mode("runs");
        world.vm(CREATE_AND_START.args, "").ok();
        assert_eq!(show(world, "dev").as_deref(), Some("running"), "{what}");
    },
    fails: true,
    ..CREATE_AND_START
};

/// What takes away what a creation has left that was killed in the middle, or a removal.
pub const GC: Verb = Verb {
    tool: "bg-gc",
    args: &["--now"],
    before: |world| {
        without_dev(world);
        let point = |call: &str| Point { call: call.into(), text: String::new(), nth: 1, own: true };
        let create = world.command(CREATE.tool, CREATE.args);
        assert!(trace::with_fault(&world.sandbox, &create, "", &point("linkat"), "signal=KILL").1);
        let left = world.sandbox.run("bg-verify", &["--now"], "");
        assert_eq!(left.exit, 1, "{left:?}");
        left.text()
    },
    after: |world, what| {
        assert_eq!(show(world, "dev"), None, "{what}");
        fixture::create(&world.sandbox, "dev");
        is_whole(world, "dev", what);
    },
    children: false,
    fails: false,
    sample: SAMPLE,
};

pub const KILL_VM: Verb = Verb { args: &["kill", "dev"], ..STOP };

pub const RESTART: Verb = Verb {
    args: &["restart", "--timeout", "1", "dev"],
    after: |world, what| {
        assert!(matches!(show(world, "dev").as_deref(), Some("stopped" | "running" | "crashed")), "{what}");
        world.vm(&["start", "dev"], "").ok();
        assert_eq!(show(world, "dev").as_deref(), Some("running"), "{what}");
    },
    ..STOP
};

pub const IMAGE_RM: Verb = Verb {
    tool: "bg-image",
    args: &["rm", "other"],
    before: |world| {
        world.sandbox.run("bg-register", &["--name", "other", "--replace"], document(world)).ok();
        String::new()
    },
    after: |world, _| {
        world.sandbox.run("bg-image", &["rm", "other"], "").ok();
        world.sandbox.run("bg-image", &["show", "other"], "").failed_with(lib_common::error::Code::NotFound);
    },
    children: true,
    fails: false,
    sample: SAMPLE,
};
