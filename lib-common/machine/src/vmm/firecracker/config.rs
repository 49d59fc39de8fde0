//! A launch as Firecracker's configuration. Pure functions.

use super::api::{
    BootSource, CacheType, Configuration, Drive, EntropyDevice, MachineConfiguration, Metrics, NetworkInterface, Vsock,
};
use super::{LEAST, Version};
use crate::vmm::{cmdline, files};
use lib_common::doc::{AbsPath, Launch, to_json};
use lib_common::error::Result;

/// The file that `--config-file` names.
///
/// # Errors
/// A version that is not supported; a path that is not UTF-8.
pub(in crate::vmm) fn configuration(launch: &Launch) -> Result<String> {
    let version = launch.vmm_version.as_deref().map_or(Ok(LEAST), Version::parse)?;
    Ok(to_json(&for_version(launch, version)?))
}

fn for_version(launch: &Launch, version: Version) -> Result<Configuration> {
    let run = |file: &str| AbsPath::new(launch.runtime_dir.join(file));
    Ok(Configuration {
        boot_source: BootSource {
            kernel_image_path: launch.kernel.clone(),
            initrd_path: run(files::INITRD)?,
            boot_args: cmdline::of(launch, None),
        },
        drives: drives(launch),
        machine_config: MachineConfiguration {
            vcpu_count: launch.vcpu,
            mem_size_mib: launch.memory_mib,
            smt: false,
            track_dirty_pages: false,
        },
        network_interfaces: network_interfaces(launch),
        vsock: Vsock { guest_cid: launch.cid, uds_path: run(files::VSOCK)? },
        entropy: EntropyDevice {},
        metrics: Metrics { metrics_path: run(files::METRICS_PIPE)?, emit_id: version.emits_id().then_some(true) },
    })
}

/// The guest sees them in this order: vda, vdb, …. None is the root device: that the initrd finds for itself.
fn drives(launch: &Launch) -> Vec<Drive> {
    let drive = |(i, disk): (usize, &lib_common::doc::LaunchDisk)| Drive {
        drive_id: format!("disk{i}"),
        path_on_host: disk.path.clone(),
        is_root_device: false,
        is_read_only: disk.read_only,
        cache_type: CacheType::Writeback,
    };
    launch.disks.iter().enumerate().map(drive).collect()
}

fn network_interfaces(launch: &Launch) -> Vec<NetworkInterface> {
    let interface = |net: &lib_common::doc::LaunchNet| NetworkInterface {
        iface_id: "eth0".into(),
        guest_mac: net.mac.clone(),
        host_dev_name: net.tap.clone(),
    };
    launch.net.iter().map(interface).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::qemu::tests::example;
    use lib_common::doc::{AbsPath, LaunchNet, Mac, VmmKind};
    use serde_json::{Value, json};

    #[test]
    fn the_configuration_of_a_vm() {
        let net = LaunchNet {
            tap: "bg-t7".into(),
            mac: Mac::parse("02:00:00:00:00:07").unwrap(),
            network_dir: AbsPath::new("/n").unwrap(),
        };
        let launch =
            Launch { kind: VmmKind::Firecracker, net: Some(net), vmm_version: Some("1.10.1".into()), ..example() };
        let run = |file: &str| format!("/run/banger/0123456789ab/{file}");
        let expected = json!({
            "boot-source": {
                "kernel_image_path": "/k/vmlinux", "initrd_path": run("initrd"),
                "boot_args": cmdline::of(&launch, None),
            },
            "drives": [
                {"drive_id": "disk0", "path_on_host": "/m/root.ext4", "is_root_device": false, "is_read_only": false,
                    "cache_type": "Writeback"},
                {"drive_id": "disk1", "path_on_host": "/m/modules.ext4", "is_root_device": false, "is_read_only": true,
                    "cache_type": "Writeback"},
            ],
            "machine-config": {"vcpu_count": 2, "mem_size_mib": 1024, "smt": false, "track_dirty_pages": false},
            "network-interfaces": [
                {"iface_id": "eth0", "guest_mac": "02:00:00:00:00:07", "host_dev_name": "bg-t7"},
            ],
            "vsock": {"guest_cid": 3, "uds_path": run("vm.vsock")},
            "entropy": {},
            "metrics": {"metrics_path": run("metrics.pipe")},
        });
        assert_eq!(serde_json::from_str::<Value>(&configuration(&launch).unwrap()).unwrap(), expected);
    }

    #[test]
    fn what_a_version_lacks_is_left_out_or_refused() {
        let of = |version: &str| configuration(&Launch { vmm_version: Some(version.into()), ..example() });
        let emit_id =
            |version: &str| serde_json::from_str::<Value>(&of(version).unwrap()).unwrap()["metrics"]["emit_id"].take();
        assert_eq!([emit_id("1.10.0"), emit_id("1.16.9"), emit_id("1.17.0")], [Value::Null, Value::Null, true.into()]);
        assert!(of("1.9.0").unwrap_err().message().contains("too old"));
        let without = serde_json::from_str::<Value>(&of("1.12.0").unwrap()).unwrap();
        assert_eq!(without["network-interfaces"], json!([]), "no network card where none was asked for");
    }
}
