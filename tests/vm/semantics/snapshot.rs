//! What of a guest is compared, what is not, and why not.

/// What is each VM's own: a name, the command that tells it in the guest, and why it is. Where one of these values occurs in
/// [`STATE`], its name in angle brackets is compared in its place.
pub const IDENTITIES: &[(&str, &str, &str)] = &[
    ("host name", "hostname", "it is the VM's name"),
    ("machine-id", "cat /etc/machine-id", "machine-id(5): never that of another machine; it is the VM's id"),
    ("SSH host key", "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub", "a shared one would let a guest be another"),
    ("private SSH host key", "sha256sum </etc/ssh/ssh_host_ed25519_key | cut -d' ' -f1", "the other half of it"),
    ("IPv4 address", "ip -4 -o addr show eth0 | awk '{print $4}' | cut -d/ -f1", "one network has all VMs"),
    ("MAC address", "cat /sys/class/net/eth0/address", "one bridge has all VMs"),
    ("boot id", "cat /proc/sys/kernel/random/boot_id", "each boot's own, of the kernel's random numbers"),
    ("random numbers", "head -c 16 /dev/urandom | od -An -tx1", "clones of one disk must not be clones in these"),
];

/// What is the same in every guest: a name and the command that prints it. Each line that is left out has its reason here.
pub const STATE: &[(&str, &str)] = &[
    // Out: how fast the host's processor counts, which is measured for each boot.
    (
        "kernel",
        "uname -srvm; sed 's/tsc_early_khz=[0-9]*/tsc_early_khz=N/' /proc/cmdline; lsmod | cut -d' ' -f1 | sort",
    ),
    ("processors", "nproc; cat /sys/devices/system/cpu/online"),
    ("memory", "grep -e MemTotal -e SwapTotal /proc/meminfo"),
    // The session of this very look has a mount of its own below /run/user, which others find there or not.
    ("mounts", "findmnt -rno TARGET,SOURCE,FSTYPE,OPTIONS,PROPAGATION | grep -v ^/run/user/ | sort"),
    // UUIDs, label and hash seed among them: a clone is a clone. Out: what counts writes and mounts (free blocks and inodes,
    // times, lifetime, journal, checksum), which is as each boot has written.
    ("root file system", "dumpe2fs -h /dev/vda 2>/dev/null | grep -E \"$SUPERBLOCK\""),
    ("work file system", "dumpe2fs -h /dev/vdb 2>/dev/null | grep -E \"$SUPERBLOCK\""),
    ("devices", "ls -l /sys/class/block | sed 's/.* \\([^ ]*\\) -> /\\1 /'; blockdev --getsize64 /dev/vda /dev/vdb"),
    ("nodes in /dev", "find /dev -xdev ! -path '/dev/pts/*' -printf '%P %y %m %U:%G %l\\n' | sort"),
    ("/root", "find /root -xdev -printf '%P|%y|%m|%U:%G|%n|%l\\n' | sort"),
    ("content of /root", "find /root -xdev -type f -print0 | sort -z | xargs -0r sha256sum"),
    // The files whose content is an identity are there, too; their content is in a section of its own.
    ("/etc", "find /etc -xdev -printf '%P|%y|%m|%U:%G|%l\\n' | sort"),
    ("content of /etc", "find /etc -xdev -type f $NOT_IDENTITIES -print0 | sort -z | xargs -0r sha256sum"),
    ("files of identities", "cat /etc/hostname /etc/machine-id /etc/hosts /etc/ssh/ssh_host_ed25519_key.pub"),
    ("resolv.conf", "cat /etc/resolv.conf"),
    ("network", "ip -br link | sed 's/:.*//' ; ip -4 route; cat /sys/class/net/eth0/{mtu,operstate}"),
    ("packages", "dpkg-query -W -f '${Package}:${Architecture} ${Version} ${Status}\\n'"),
    ("unit files", "systemctl list-unit-files --no-legend --plain"),
    // Out: scopes, slices and services of whoever is logged in, which is this look; what runs when its time has come.
    (
        "units",
        "systemctl list-units --all --no-legend --plain --no-pager | awk '{print $1,$2,$3,$4}' | grep -vE \"$UNITS\"",
    ),
    ("failed units", "systemctl --failed --no-legend --plain"),
    ("services that run", "systemctl is-active ssh dbus systemd-logind systemd-udevd systemd-journald banger-agent"),
    ("drop-ins and units of this boot", "cd /run/systemd/system && find . -printf '%P %y %m %l\\n' | sort"),
    ("masked generators", "find /run/systemd/system-generators -mindepth 1 2>/dev/null | sort"),
    ("ordering cycles", "journalctl -b --no-pager -q | grep -ci 'ordering cycle'; true"),
    ("package tools", "apt-get check -qq && dpkg --audit && echo sound"),
    ("loginctl", "loginctl list-users --no-legend >/dev/null && echo answers"),
    // Out: counters, and what the kernel takes from its random numbers or from the memory that was free at a moment.
    ("sysctls", "sysctl -a 2>/dev/null | grep -vE \"$SYSCTLS\" | sort"),
    // Out: the port that the connection of this look comes from, and its session's number.
    ("environment", "env | grep -vE '^(SSH_(CLIENT|CONNECTION)|XDG_SESSION_ID|_)=' | sort; umask; ulimit -a"),
    ("users", "getent passwd; getent group; passwd -S root"),
    ("locale and time", "locale; cat /etc/timezone; readlink /etc/localtime"),
    ("sshd", "sshd -T | sort"),
];

/// Sections with one right answer.
pub const PROMISES: &[(&str, &str)] = &[
    ("processors", "2\n0-1"),
    ("failed units", ""),
    ("services that run", "active\nactive\nactive\nactive\nactive\nactive"),
    ("masked generators", ""),
    ("ordering cycles", "0"),
    ("package tools", "sound"),
    ("loginctl", "answers"),
];

/// Says so when nothing of the boot is under way.
pub const AT_REST: &str = "systemctl list-jobs --no-legend | grep -q . || \
    systemctl show -P ActiveState banger-booted.service banger-login-first.service | grep -v -e inactive -e '^$' || echo at rest";

/// Patterns of the commands above.
const VARIABLES: &str = r"
SUPERBLOCK='^(Filesystem (volume|UUID|magic|rev|feat|flags|OS|created)|Default |(Inode|Block) (count|size)|Reserved|First )'
SUPERBLOCK=$SUPERBLOCK'|^((Blocks|Inodes) per|Flex|Fragment|Required extra|Desired extra|Directory Hash|Errors behav)'
UNITS='^(session-.*|user@.*|user-.*|user-runtime-dir@.*|run-user-.*)\.'
SYSCTLS='^(kernel\.(random\.(boot_id|uuid|entropy_avail)|ns_last_pid)|vm\.user_reserve_kbytes|fs\.(dentry-state|file-nr|inode-nr|inode-state)) '
";

/// Files of `/etc` that are identities, as find(1) names them.
const IDENTITY_FILES: [&str; 5] =
    ["hostname", "hosts", "machine-id", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"];

/// Begins the line before a section.
const MARK: &str = "=== ";

/// What one guest has said: sections in the order of the tables, by their names.
pub struct Snapshot(Vec<(String, String)>);

/// The script for bash that prints all sections.
pub fn script() -> String {
    let not: Vec<String> = IDENTITY_FILES.iter().map(|name| format!("! -name {name}")).collect();
    let mut script = format!("exec 2>&1\n{VARIABLES}NOT_IDENTITIES='{}'\n", not.join(" "));
    let identities = IDENTITIES.iter().map(|(name, command, _)| (name, command));
    for (name, command) in identities.chain(STATE.iter().map(|(name, command)| (name, command))) {
        script.push_str(&format!("echo '{MARK}{name}'\n( {command} ) </dev/null\n"));
    }
    script
}

impl Snapshot {
    /// Of what [`script`] has printed.
    pub fn parse(printed: &str) -> Self {
        let mut sections: Vec<(String, String)> = vec![];
        for line in printed.lines() {
            match (line.strip_prefix(MARK), sections.last_mut()) {
                (Some(name), _) => sections.push((name.to_owned(), String::new())),
                (None, Some((_, text))) if text.is_empty() => line.clone_into(text),
                (None, Some((_, text))) => *text = format!("{text}\n{line}"),
                (None, None) => panic!("a line before the first section: {line}"),
            }
        }
        assert_eq!(
            sections.len(),
            IDENTITIES.len() + STATE.len(),
            "{}",
            &printed[printed.len().saturating_sub(2000)..]
        );
        let state = sections.split_off(IDENTITIES.len());
        for (name, value) in &sections {
            assert!(value.len() > 3 && !value.contains('\n'), "{name} is {value:?}");
        }
        let masked = state.into_iter().map(|(name, text)| {
            let own =
                sections.iter().fold(text, |text, (identity, value)| text.replace(value, &format!("<{identity}>")));
            (name, own)
        });
        let masked: Vec<_> = masked.collect();
        Snapshot(sections.into_iter().chain(masked).collect())
    }

    /// A section as it was printed, with the identities' names in place of the identities.
    pub fn section(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(section, _)| section == name);
        &found.unwrap_or_else(|| panic!("there is no section {name}")).1
    }

    /// The sections that are not equal, each with the lines that only one of the two has; nothing where all are.
    pub fn differences(&self, other: &Self) -> String {
        let differ = STATE.iter().filter(|(name, _)| self.section(name) != other.section(name));
        differ
            .map(|(name, _)| format!("{MARK}{name}\n{}", lines_of_one(self.section(name), other.section(name))))
            .collect()
    }
}

/// Lines that are not in both texts, `-` before those of the first and `+` before those of the second; where only their order
/// differs, both.
fn lines_of_one(first: &str, second: &str) -> String {
    let only = |sign: char, one: &str, other: &str| -> String {
        let lines = one.lines().filter(|line| !other.lines().any(|theirs| theirs == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect()
    };
    let lines = only('-', first, second) + &only('+', second, first);
    if lines.is_empty() { format!("another order:\n{first}\n and\n{second}\n") } else { lines }
}

#[test]
fn a_difference_is_shown_and_an_identity_is_none() {
    let printed = |own: &str, content: &str| -> String {
        let identities = IDENTITIES.iter().map(|(name, ..)| format!("{MARK}{name}\n{own} {name}\n"));
        let state = STATE.iter().map(|(name, _)| format!("{MARK}{name}\nat {own} host name\n{content}\n"));
        identities.chain(state).collect()
    };
    let one = Snapshot::parse(&printed("first", "same"));
    assert_eq!(one.section("kernel"), "at <host name>\nsame");
    assert_eq!(one.differences(&Snapshot::parse(&printed("second", "same"))), "");
    let differences = one.differences(&Snapshot::parse(&printed("second", "other")));
    assert!(differences.starts_with("=== kernel\n- same\n+ other\n"), "{differences}");
}
