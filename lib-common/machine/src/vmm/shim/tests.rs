use super::*;
use crate::vmm::qemu::tests::example;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

#[test]
fn only_qemus_own_event_tells_a_poweroff_from_a_crash() {
    let (zero, killed) = (ExitStatus::from_raw(0), ExitStatus::from_raw(9));
    for (shutdown, status, stopping, end) in [
        (Some("guest-shutdown"), zero, false, End::Poweroff),
        (Some("guest-reset"), zero, false, End::Reboot),
        (Some("host-signal"), zero, false, End::Crashed),
        (Some("guest-panic"), zero, false, End::Crashed),
        (None, zero, false, End::Crashed),
        (None, killed, false, End::Crashed),
        (Some("guest-shutdown"), killed, false, End::Crashed),
        (Some("host-signal"), zero, true, End::Killed),
        (Some("guest-reset"), zero, true, End::Killed),
        (None, killed, true, End::Killed),
    ] {
        let ended = Ended::example(status, shutdown);
        assert_eq!(classify(&ended, stopping), end, "{ended:?} {stopping}");
    }
}

#[test]
fn a_launch_file_cannot_name_a_directory_that_is_not_the_vms() {
    assert!(check(&example()).is_ok());
    for (id, dir) in [
        ("0123456789abcdef0123456789abcdef", "/home/0123456789ac"),
        ("0123456789abcdef0123456789abcdef", "/"),
        ("0123456789ab", "/run/0123456789ab"),
        ("0123456789ab\u{e9}ef0123456789abcdeff", "/run/0123456789ab"),
        ("", "/run"),
    ] {
        let launch =
            Launch { machine_id: id.into(), runtime_dir: lib_common::doc::AbsPath::new(dir).unwrap(), ..example() };
        assert_eq!(check(&launch).unwrap_err().code(), Code::BadDocument, "{id} {dir}");
    }
}

#[test]
fn an_early_end_is_told_with_the_last_words() {
    let e = Ended::example(ExitStatus::from_raw(1 << 8), None).into_error("/m/shim.log");
    assert_eq!(e.message(), "the VMM ended at once (exit 1)");
    assert_eq!(e.causes(), ["could not load kernel"]);
    assert_eq!(e.get_child().unwrap().status, "exit 1");
}
