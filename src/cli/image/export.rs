//! `carboy image export`.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use carboy::Engine;
use carboy::fsutil::PathContext;
use carboy::oci::store::ArchiveFormat;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde_json::json;

use crate::cli::exit::Failure;
use crate::cli::output::Output;

/// Write an image to an archive, with the very blobs it came with
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image
    name: String,
    /// The archive; `-` is standard output
    file: PathBuf,
    /// The archive's form: that of the OCI keeps the digest, that of Docker is for `docker load`
    #[arg(long, value_enum, default_value_t = Format::Oci)]
    format: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Oci,
    Docker,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let format = match self.format {
            Format::Oci => ArchiveFormat::Oci,
            Format::Docker => ArchiveFormat::Docker,
        };
        if self.file == Path::new("-") {
            if io::stdout().is_terminal() {
                let text = "an archive is nothing for a terminal; name a file, or use a pipe";
                return Err(Failure::usage(text.to_owned()));
            }
            engine.export_image(&self.name, format, io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
        write(&self.file, |file| Ok(engine.export_image(&self.name, format, file)?))?;
        output.data(&json!({ "reference": self.name, "file": self.file }), String::new);
        Ok(ExitCode::SUCCESS)
    }
}

/// Fills a file: whole, or not at all. What is there stays until the new one is whole; what is no
/// regular file, such as a pipe, is written as it is.
fn write(path: &Path, fill: impl FnOnce(&File) -> Result<(), Failure>) -> Result<(), Failure> {
    if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return fill(&File::options().write(true).open(path).at("open", path)?);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let (file, named) = create(&temporary)?;
    let filled = fill(&file).and_then(|()| {
        file.sync_all().at("sync", &temporary)?;
        if !named {
            // As linkat(2) has it for who lacks CAP_DAC_READ_SEARCH.
            let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, descriptor, CWD, &temporary, AtFlags::SYMLINK_FOLLOW)
                .at("create", &temporary)?;
        }
        fs::rename(&temporary, path).at("rename onto", path)?;
        Ok(())
    });
    if filled.is_err() {
        // The first error is the one to tell.
        fs::remove_file(&temporary).unwrap_or_default();
    }
    filled
}

/// A file that gets its name when it is whole, so that an export which is cut short leaves nothing;
/// where the file system knows none without a name, one that has it already. Which of the two it is.
fn create(path: &Path) -> Result<(File, bool), Failure> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => Ok((File::from(file), false)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            Ok((File::create_new(path).at("create", path)?, true))
        }
        Err(errno) => Err(errno).at("create", path)?,
    }
}
