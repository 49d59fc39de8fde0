//! What a directory without a record is: the rest of a creation or removal that was killed, which is a leak, or a VM or image
//! whose record was lost, which is damage. A name is claimed with its journal, so a creation that was killed has an operation
//! open that would remove it.

use lib_common::doc::Undo;
use lib_common::error::Result;
use lib_common::sys::dirs::list;
use lib_machine::store::OpenOperation;
use std::fs::DirEntry;
use std::path::Path;

/// Whether a directory without a record, with the operation that is open in it, is what a killed tool has left.
///
/// # Errors
/// What keeps it from being listed: then nobody knows.
pub fn is_leftover(dir: &Path, open: Option<&OpenOperation>) -> Result<bool> {
    let removes_it = open.is_some_and(|open| open.undo.contains(&Undo::RemoveObject));
    Ok(removes_it || is_bare(dir)?)
}

/// Whether a directory holds nothing but a lock, if anything: nothing is lost with it. One that is gone holds nothing.
///
/// # Errors
/// What keeps it from being listed.
pub fn is_bare(dir: &Path) -> Result<bool> {
    let is_lock = |entry: &DirEntry| entry.file_name() == "lock" && entry.file_type().is_ok_and(|kind| kind.is_file());
    Ok(list(dir)?.iter().all(is_lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_machine::store::Journal;

    #[test]
    fn only_what_its_journal_would_remove_or_holds_nothing_is_left_over() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("dev");
        let is = || {
            is_leftover(&dir, Journal::in_dir(&dir, lib_machine::net::give_back_all).open_operation().unwrap().as_ref())
                .unwrap()
        };
        assert!(is(), "it is gone");
        std::fs::create_dir(&dir).unwrap();
        assert!(is(), "it is empty");
        std::fs::write(dir.join("lock"), "").unwrap();
        assert!(is());
        std::fs::write(dir.join("root.ext4"), "").unwrap();
        assert!(!is(), "nothing says that somebody was making it");
        let begin = |undo| Journal::in_dir(&dir, lib_machine::net::give_back_all).begin_with("create", undo).unwrap();
        begin(vec![]).hand_on();
        assert!(!is(), "an operation that would not remove it");
        begin(vec![Undo::RemoveObject]).hand_on();
        assert!(is());
        Journal::in_dir(&dir, lib_machine::net::give_back_all).resume().unwrap().unwrap().commit().unwrap();
        assert!(!is(), "it was whole");
    }
}
