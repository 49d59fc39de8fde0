//! The programs and the agent that the settings name, or that lie in the bundle or the cache.
//!
//! They run as the caller, or go into guests. So a file of another user, or one that another user can replace, is refused: root
//! may have been given another user's `HOME`. What is found in `PATH` is the caller's choice.

use super::Config;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::{owned, program};
use std::path::{Path, PathBuf};

impl Config {
    /// The cache directory, which is the caller's where it exists.
    ///
    /// # Errors
    /// [`Code::Permission`] for a link, and for a directory that another user owns, can write to, or can replace.
    pub fn cache(&self) -> Result<&Path> {
        owned::is_dir(&self.cache_dir, "")?;
        owned::is_safe_from_others(&self.cache_dir)?;
        Ok(&self.cache_dir)
    }

    /// The guest agent's binary: configured, else the bundle's, else `../libexec/banger/` from the tool, else beside the tool.
    ///
    /// # Errors
    /// [`Code::MissingFile`]; [`Code::Permission`] for a file that others can change.
    pub fn agent_path(&self) -> Result<PathBuf> {
        let missing = |what: String| {
            Error::new(Code::MissingFile, what).hint("run `make build`, or set BG_GUEST_AGENT to the agent's binary")
        };
        if let Some(path) = &self.guest_agent {
            let gone = || missing(format!("the guest agent {} is not there", path.display()));
            trusted(path, "BG_GUEST_AGENT")?;
            return path.is_file().then(|| path.clone()).ok_or_else(|| self.explain_missing("guest_agent", gone()));
        }
        if let Some(bundle) = self.bundle()? {
            return bundle.file(&bundle.bundle.agent_path);
        }
        let beside = self.tool_dir.as_ref().map(|dir| dir.join("guest-agent"));
        let mut places = self.libexec("guest-agent").into_iter().chain(beside);
        places.find(|p| p.is_file()).ok_or_else(|| missing("the guest agent's binary was not found".into()))
    }

    /// The Firecracker to run: configured, whether it is there or not; else the bundle's; else the one in `PATH`.
    ///
    /// # Errors
    /// As [`Config::bundle`]; [`Code::Permission`] for a file that others can change.
    pub fn firecracker_path(&self) -> Result<Option<PathBuf>> {
        if let Some(path) = &self.firecracker {
            return trusted(path, "BG_FIRECRACKER").map(Some);
        }
        if let Some(bundle) = self.bundle()?
            && let Some(path) = &bundle.bundle.firecracker_path
        {
            return bundle.file(path).map(Some);
        }
        Ok(program::find(Path::new("firecracker")).ok())
    }

    /// The QEMU to run: configured, whether it is there or not; else by the architecture's name in `PATH`.
    ///
    /// # Errors
    /// [`Code::Permission`] for a file that others can change.
    pub fn qemu_path(&self) -> Result<PathBuf> {
        match &self.qemu {
            Some(path) if path.is_absolute() => trusted(path, "BG_QEMU"),
            Some(name) => Ok(name.clone()),
            None => Ok(PathBuf::from(format!("qemu-system-{}", std::env::consts::ARCH))),
        }
    }

    /// What `make install` puts behind the tools: `../libexec/banger/NAME` from the tool.
    fn libexec(&self, name: &str) -> Option<PathBuf> {
        Some(self.tool_dir.as_ref()?.parent()?.join("libexec/banger").join(name))
    }

    /// vhost-device-vsock: configured, else in `PATH`, else in the cache, where `pipelines/setup` puts it, else where `make install`
    /// puts it for all users.
    ///
    /// # Errors
    /// [`Code::MissingProgram`]; [`Code::Permission`] for a file that others can change.
    pub fn vhost_device_vsock_path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.vhost_device_vsock {
            return trusted(path, "BG_VHOST_DEVICE_VSOCK");
        }
        let cached = self.cache_dir.join("vhost-device-vsock/bin/vhost-device-vsock");
        let installed = self.libexec("vhost-device-vsock").filter(|path| path.is_file());
        program::find(Path::new("vhost-device-vsock")).or_else(|missing| match owned::is_trusted(&cached)? {
            true => Ok(cached),
            false => installed.ok_or(missing),
        })
    }

    /// A program that the settings name, or that was found: its absolute path.
    ///
    /// # Errors
    /// [`Code::MissingProgram`], which names the variable or the file that has set `key`.
    pub fn find_program(&self, key: &str, program: &Path) -> Result<PathBuf> {
        program::find(program).map_err(|e| self.explain_missing(key, e))
    }

    /// The error of a program or file that a setting names, with the setting's place.
    fn explain_missing(&self, key: &str, e: Error) -> Error {
        let Some((value, origin)) = self.values.get(key) else { return e };
        let (message, hint) = match origin.starts_with('/') {
            true => (format!("`{key}` in {origin} names {value}"), format!("mend `{key}` in {origin}")),
            false => {
                (format!("{origin} names {value}"), format!("unset {origin}, or set it to a program that is there"))
            }
        };
        let hint = std::iter::once(hint.as_str()).chain(e.get_hint()).collect::<Vec<_>>().join("; or ");
        Error::new(e.code(), format!("{message}, and no program is there"))
            .also(e.message())
            .hint(hint)
            .detail("program", value)
    }

    /// A tool of this suite, beside the one that runs.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        let beside = self.tool_dir.as_ref().map(|d| d.join(name)).filter(|p| p.is_file());
        beside.ok_or_else(|| {
            Error::new(Code::MissingProgram, format!("the program `{name}` is not beside this one"))
                .hint("install the suite as a whole: cargo install --path .")
        })
    }
}

/// Parses the setting `qemu`: a name that is looked up in `PATH`, or an absolute path.
pub(super) fn parse_qemu(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() || !text.is_empty() && !text.contains('/') {
        true => Ok(path),
        false => Err(format!("`{text}` is neither a program's name nor an absolute path")),
    }
}

/// Refuses a file that others can change. One that is missing is for its user to report.
fn trusted(path: &Path, variable: &str) -> Result<PathBuf> {
    owned::is_trusted(path).map_err(|e| match std::fs::canonicalize(path) {
        Ok(file) if path.is_symlink() => e.hint(format!("name the file itself: {variable}={}", file.display())),
        _ => e,
    })?;
    Ok(path.to_owned())
}
