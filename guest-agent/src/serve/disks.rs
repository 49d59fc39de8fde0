//! The state of the guest's file systems: what of them is used, and what is wrong with them. Whatever cannot be read is no
//! problem.

use super::health::line;
use nix::sys::statvfs::{FsFlags, statvfs};

/// A file system with less room than this, in bytes, is full.
const LEAST_BYTES: u64 = 1 << 20;

/// A mounted file system of a disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileSystem {
    /// Bytes that are used.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes that programs without privileges can still use.
    available: u64,
    /// Inodes in all; 0 where there is no such limit.
    inodes: u64,
    /// Inodes that are free.
    free_inodes: u64,
    read_only: bool,
    /// What ext4 has counted since the disk was last checked.
    errors: u64,
}

impl FileSystem {
    /// What is mounted at `at`, of the disk with the kernel's name `disk`; `None` where that cannot be asked.
    pub fn at(at: &str, disk: &str) -> Option<Self> {
        let stat = statvfs(at).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Some(FileSystem {
            used: bytes(stat.blocks().saturating_sub(stat.blocks_free())),
            total: bytes(stat.blocks()),
            available: bytes(stat.blocks_available()),
            inodes: stat.files(),
            free_inodes: stat.files_free(),
            read_only: stat.flags().contains(FsFlags::ST_RDONLY),
            // The kernel's Documentation/ABI/testing/sysfs-fs-ext4.
            errors: line(&format!("/sys/fs/ext4/{disk}/errors_count")).parse().unwrap_or(0),
        })
    }

    /// What is wrong with it, in words.
    pub fn problems(&self, at: &str) -> Vec<String> {
        let wrong = [
            (self.read_only, format!("the file system of {at} is read-only")),
            (self.errors > 0, format!("the file system of {at} has {} errors: e2fsck mends it", self.errors)),
            (self.total > 0 && self.available < LEAST_BYTES, format!("the file system of {at} is full")),
            (self.inodes > 0 && self.free_inodes == 0, format!("the file system of {at} has no free inodes")),
        ];
        wrong.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_says_all_that_is_wrong_with_it() {
        let fine =
            FileSystem { used: 1, total: 9 << 20, available: 8 << 20, inodes: 9, free_inodes: 1, ..Default::default() };
        let text = |fs: FileSystem| fs.problems("/root").join("; ");
        assert_eq!(text(fine.clone()), "");
        for (bad, problem) in [
            (FileSystem { read_only: true, ..fine.clone() }, "the file system of /root is read-only"),
            (FileSystem { errors: 2, ..fine.clone() }, "the file system of /root has 2 errors: e2fsck mends it"),
            (FileSystem { available: (1 << 20) - 1, ..fine.clone() }, "the file system of /root is full"),
            (FileSystem { free_inodes: 0, ..fine.clone() }, "the file system of /root has no free inodes"),
        ] {
            assert_eq!(text(bad), problem);
        }
        assert_eq!(FileSystem { read_only: true, errors: 1, available: 0, ..fine.clone() }.problems("/").len(), 3);
        assert_eq!(text(FileSystem { inodes: 0, free_inodes: 0, ..fine }), "", "btrfs has no such limit");
    }

    #[test]
    fn what_is_used_is_part_of_the_whole() {
        let root = FileSystem::at("/", "none").unwrap();
        assert!(root.total > 0 && root.used <= root.total && root.errors == 0, "{root:?}");
        assert_eq!(FileSystem::at("/nowhere", "vda"), None);
    }
}
