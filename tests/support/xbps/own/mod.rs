//! The packages of the test distribution that are not Debian's: what makes a Void of its programs, by the names that Void
//! has for it. `files/` has their files.

use super::package::{PackageSpec, xml};
use lib_xbps::key::Key;

macro_rules! own {
    ($name:literal) => {
        include_str!(concat!("files/", $name))
    };
}

/// By Void's names, what Debian has under others.
const RENAMED: &[(&str, &[&str])] = &[
    ("shadow", &["login", "passwd"]),
    ("procps-ng", &["procps"]),
    ("iputils", &["iputils-ping"]),
    ("ncurses", &["ncurses-bin"]),
    ("which", &["debianutils"]),
    ("glibc", &["libc6", "libc-bin"]),
];

/// What `base-container` needs, as far as the test distribution has it.
const BASE: &[&str] = &[
    "base-files",
    "coreutils",
    "findutils",
    "diffutils",
    "dash",
    "grep",
    "gzip",
    "sed",
    "gawk",
    "util-linux",
    "mount",
    "hostname",
    "which",
    "tar",
    "shadow",
    "procps-ng",
    "glibc",
    "pam-base",
    "ncurses-base",
    "xbps",
    "runit-void",
];

/// What packages with triggers have beside `INSTALL`.
const REMOVE: &str = "#!/bin/sh\nexit 0\n";

/// All of them. `key`: the public one that signs the repository, in PEM, which the package `xbps` ships.
pub fn packages(key: &str) -> Vec<PackageSpec> {
    let mut all = vec![base_files(), pam_base(), runit_void(), openssh(), xbps(key), tool(), tool_data()];
    let depend = |names: &[&str]| names.iter().map(|name| format!("{name}>=0")).collect();
    all.extend(RENAMED.iter().map(|(name, debian)| {
        let mut spec = PackageSpec::new(name, "1_1");
        spec.run_depends = depend(debian);
        spec
    }));
    let mut base = PackageSpec::new("base-container", "0.12_1");
    base.run_depends = depend(BASE);
    all.push(base);
    all
}

fn base_files() -> PackageSpec {
    let links = [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib"),
        ("usr/sbin", "bin"),
        ("usr/lib64", "lib"),
        ("etc/mtab", "/proc/self/mounts"),
    ];
    let files = [
        ("etc/passwd", own!("passwd")),
        ("etc/group", own!("group")),
        ("etc/fstab", own!("fstab")),
        ("etc/profile", own!("profile")),
        ("etc/os-release", own!("os-release")),
        ("etc/nsswitch.conf", own!("nsswitch.conf")),
        ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
        ("etc/shells", "/bin/sh\n/bin/dash\n/bin/bash\n"),
    ];
    let mut spec = PackageSpec::new("base-files", "0.145_1").install(own!("base-files.INSTALL")).remove(REMOVE);
    spec = links.into_iter().fold(spec, |spec, (path, target)| spec.link(path, target));
    spec = files.into_iter().fold(spec, |spec, (path, text)| spec.file(path, text, 0o644));
    all_of_etc_is_configuration(spec)
}

/// What Debian's libpam-runtime writes when it is installed.
fn pam_base() -> PackageSpec {
    let lines = [
        ("common-auth", "auth required pam_unix.so\n"),
        ("common-account", "account required pam_unix.so\n"),
        ("common-password", "password required pam_unix.so yescrypt\n"),
        ("common-session", "session required pam_unix.so\n"),
        ("common-session-noninteractive", "session required pam_unix.so\n"),
        ("other", "auth required pam_deny.so\naccount required pam_deny.so\n"),
    ];
    let spec = PackageSpec::new("pam-base", "0.4_1").needs(&["libpam-modules>=0"]);
    let spec = lines.into_iter().fold(spec, |spec, (file, text)| spec.file(&format!("etc/pam.d/{file}"), text, 0o644));
    all_of_etc_is_configuration(spec)
}

fn runit_void() -> PackageSpec {
    let mut spec = PackageSpec::new("runit-void", "20231124_1")
        .needs(&["runit>=0", "util-linux>=0", "procps>=0", "iproute2>=0"])
        .file("etc/runit/1", own!("stage-1"), 0o755)
        .file("etc/runit/2", own!("stage-2"), 0o755)
        .file("etc/runit/3", own!("stage-3"), 0o755)
        .file("etc/runit/ctrlaltdel", own!("ctrlaltdel"), 0o755)
        // In Void they are links to where its runit looks, and so they are here.
        .link("etc/runit/stopit", "/run/runit.stopit")
        .link("etc/runit/reboot", "/run/runit.reboot")
        .link("etc/runit/runsvdir/current", "default")
        .link("var/service", "../run/runit/runsvdir/current")
        // Where Debian's sv looks.
        .link("etc/service", "/var/service")
        .link("usr/bin/runit-init", "../lib/runit/runit-init")
        .link("usr/bin/init", "runit-init")
        .file("usr/bin/shutdown", own!("shutdown"), 0o755)
        .install(own!("runit-void.INSTALL"))
        .remove(REMOVE);
    for name in ["halt", "poweroff", "reboot"] {
        spec = spec.link(&format!("usr/bin/{name}"), "shutdown");
    }
    for tty in ["tty1", "tty2", "tty3", "tty4", "tty5", "tty6", "ttyS0"] {
        spec = service(spec, &format!("agetty-{tty}"), own!("agetty.run"));
    }
    spec
}

fn openssh() -> PackageSpec {
    let spec = PackageSpec::new("openssh", "9.2p1_1")
        .needs(&["openssh-server>=0", "openssh-client>=0", "pam-base>=0", "shadow>=0"])
        .file("etc/ssh/sshd_config", own!("sshd_config"), 0o644)
        .install(own!("openssh.INSTALL"))
        .remove(REMOVE);
    all_of_etc_is_configuration(service(spec, "sshd", own!("sshd.run")))
}

/// The stand-in for xbps itself. As Void's, it ships the keys that it trusts.
fn xbps(key: &str) -> PackageSpec {
    let key = Key::of_pem(key).unwrap();
    let path = format!("var/db/xbps/keys/{}.plist", key.fingerprint());
    let mut spec = PackageSpec::new("xbps", "0.0_1")
        .needs(&["busybox-static>=0", "zstd>=0", "gawk>=0", "tar>=0", "coreutils>=0"])
        .file(
            "usr/share/xbps.d/00-repository-main.conf",
            "repository=https://repo-default.voidlinux.org/current\n",
            0o644,
        )
        .file("usr/libexec/xbps-stand-in/stand-in.sh", own!("stand-in.sh"), 0o644)
        .file(&path, xml(key.dictionary()), 0o644)
        .install("#!/bin/sh\n[ \"$1\" = pre ] || exit 0\n[ -d usr/share/xbps.d ] && echo \"$*\" >var/db/xbps/pre\n")
        .remove(REMOVE);
    spec.description = "a stand-in for Void's xbps, for tests".into();
    for (name, script) in
        [("install", own!("xbps-install")), ("query", own!("xbps-query")), ("pkgdb", own!("xbps-pkgdb"))]
    {
        spec = spec.file(&format!("usr/bin/xbps-{name}"), script, 0o755);
    }
    spec
}

/// The name of a package that is in the repository and in no base; its command has it, too.
pub const TOOL: &str = "bgtest";

/// It needs a package that is in no base either, and its script leaves what it was called with.
fn tool() -> PackageSpec {
    PackageSpec::new(TOOL, "1.2_3")
        .needs(&["bgtest-data>=1_1", "dash>=0"])
        .file("usr/bin/bgtest", "#!/bin/sh\ncat /usr/share/bgtest/words\n", 0o755)
        .install("#!/bin/sh\necho \"$* in $PWD\" >>var/lib/bgtest.post\n")
}

fn tool_data() -> PackageSpec {
    PackageSpec::new("bgtest-data", "1_1").file("usr/share/bgtest/words", "bgtest works\n", 0o644)
}

/// A service that is there and that nobody has switched on; what supervises it works where `/etc` cannot be written.
fn service(spec: PackageSpec, name: &str, run: &str) -> PackageSpec {
    let dir = format!("etc/sv/{name}");
    spec.file(&format!("{dir}/run"), run, 0o755)
        .link(&format!("{dir}/supervise"), &format!("/run/runit/supervise.{name}"))
}

fn all_of_etc_is_configuration(mut spec: PackageSpec) -> PackageSpec {
    let files = spec.entries.iter().filter(|entry| matches!(entry.content, super::package::Content::File(_)));
    let files = files.filter(|entry| entry.path.starts_with("etc/") && !entry.path.starts_with("etc/sv/"));
    spec.conf_files = files.map(|entry| format!("/{}", entry.path)).collect();
    spec
}
