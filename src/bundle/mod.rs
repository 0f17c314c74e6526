//! The bundle: a directory with `config.json`, as untrusted input; bundle.md.

pub mod document;
pub mod input;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use oci_spec::runtime::Spec;
use serde_json::value::{RawValue, to_raw_value};

use self::input::Pipes;
use crate::error;
use crate::error::{Fault, Hint, Pointer};

/// The name of the configuration file in a bundle.
pub const CONFIG: &str = "config.json";

/// A bundle that has been read, but not validated.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute; symbolic links are not resolved.
    pub path: PathBuf,
    pub spec: Spec,
    /// Unknown capabilities, which are left out of `spec`.
    pub unknown_capabilities: Vec<String>,
}

impl Bundle {
    /// Reads the bundle at `path`; `config`, if given, replaces its `config.json`.
    ///
    /// # Errors
    /// Invalid JSON or a value of the wrong type, with line, column and pointer.
    pub fn open(path: &Path, config: Option<&Path>) -> Result<Self> {
        let path = std::path::absolute(path).with_context(|| format!("open bundle {}", path.display()))?;
        let file = config.map_or_else(|| path.join(CONFIG), Path::to_path_buf);
        let pipes = if config.is_some() { Pipes::Taken } else { Pipes::Refused };
        let text = match input::document(&file, pipes) {
            Err(error) if error::errno(&error) == Some(Errno::ENOENT) && config.is_none() => {
                let hint = if path.is_dir() {
                    "a bundle is a directory that contains config.json; `runtime spec` creates one".to_owned()
                } else {
                    "the directory does not exist".to_owned()
                };
                let doing = format!("open bundle {}: {CONFIG}", path.display());
                return Err(anyhow!(Errno::ENOENT).context(Hint(doing, hint)));
            }
            text => text?,
        };
        let (spec, unknown_capabilities) = document::spec(&text)?;
        Ok(Self { path, spec, unknown_capabilities })
    }

    /// Encodes `linux.resources` for the state file: `update` needs to know the limits in force.
    pub fn resources(&self) -> Result<Option<Box<RawValue>>> {
        let resources = self.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        resources.map(to_raw_value).transpose().context("encode the resources")
    }

    /// Encodes what `exec` will need of `config.json`; [`document::Excerpt`].
    pub fn excerpt(&self) -> Result<Vec<u8>> {
        document::keep(&self.spec)
    }

    /// Returns the rootfs: absolute, without symbolic links.
    ///
    /// # Errors
    /// It does not exist or is not a directory.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let at = Pointer::root().field("root");
        let Some(root) = self.spec.root() else {
            return Err(at.error_with_hint("is missing", "add {\"path\": \"rootfs\"}"));
        };
        let at = at.field("path");
        if root.path().as_os_str().is_empty() {
            return Err(at.error("path must not be empty"));
        }
        let named = self.path.join(root.path());
        let found = fs::canonicalize(&named).with_context(|| Fault {
            pointer: at.clone(),
            message: format!("open rootfs {}", named.display()),
            hint: None,
        })?;
        if found.is_dir() {
            Ok(found)
        } else {
            Err(at.error(format_args!("{} is not a directory", named.display())))
        }
    }
}
