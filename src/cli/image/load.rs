//! `carboy image load`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use carboy::Engine;
use carboy::oci::rootfs_image::RootfsConfig;
use carboy::oci::store::Loaded;
use carboy::oci::transport::{FileForm, Transport};

use crate::cli::exit::Failure;
use crate::cli::output::Output;

/// Load images from a file or directory
///
/// PLACE is a path, whose form is found out by its content, or one of skopeo's transports:
/// docker-archive:FILE[:REF], oci-archive:FILE[:REF], oci:DIR[:REF], dir:DIR. Of several images all are
/// loaded, or the one that REF names. rootfs:PATH makes an image of a root file system, a directory or
/// a tar; the options from --entrypoint on are its configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file or directory; `-` is standard input
    #[arg(value_name = "PLACE")]
    place: OsString,
    /// The image's name; that which the file gives it unless given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A root file system's program; more words, each with the option, are arguments it always has
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Its command, or further arguments, a word with each option
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// A variable of its environment
    #[arg(short = 'e', long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Its working directory
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<String>,
    /// Its user: name, uid, name:group or uid:gid
    #[arg(short = 'u', long, value_name = "USER")]
    user: Option<String>,
    /// The signal that asks it to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Note something about it
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let transport = Transport::parse(&self.place).map_err(|e| Failure::new(&e))?;
        let mut labels = BTreeMap::new();
        for label in self.label {
            let (key, value) = label.split_once('=').unwrap_or((&label, ""));
            if key.is_empty() {
                return Err(Failure::usage(format!("label {label:?} has no key")));
            }
            labels.insert(key.to_owned(), value.to_owned());
        }
        let config = RootfsConfig {
            entrypoint: self.entrypoint,
            cmd: self.cmd,
            env: self.env,
            workdir: self.workdir,
            user: self.user,
            stop_signal: self.stop_signal,
            labels,
        };
        let rootfs = matches!(&transport, Transport::File(file) if file.form == FileForm::Rootfs);
        if !rootfs && !config.is_empty() {
            let text =
                "an image has a configuration of its own; the options for one are for rootfs:";
            return Err(Failure::usage(text.to_owned()));
        }
        let loaded = engine.load_image(&transport, config, self.name.as_deref())?;
        notes(&loaded, output);
        output.data(&loaded, || {
            loaded.iter().map(|image| format!("{}\n", image.reference)).collect()
        });
        Ok(ExitCode::SUCCESS)
    }
}

fn notes(loaded: &[Loaded], output: &Output) {
    loaded.iter().for_each(|image| output.notes(&image.notes));
}

/// The name of the image that a bottle is to run: a file's or directory's image is loaded first, a
/// registry's is pulled by whoever runs it, if it must.
pub(in crate::cli) fn image_name(
    engine: &Engine,
    output: &Output,
    word: String,
) -> Result<String, Failure> {
    if !Transport::is_named(&word) {
        return Ok(word);
    }
    let transport = Transport::parse(word.as_ref()).map_err(|e| Failure::new(&e))?;
    if let Transport::Registry(name) = &transport {
        return Ok(name.to_string());
    }
    let loaded = engine.load_image(&transport, RootfsConfig::default(), None)?;
    notes(&loaded, output);
    // One image may have several names.
    match loaded.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| other.digest == first.digest) => {
            Ok(first.reference.clone())
        }
        _ => Err(Failure::usage(format!("{word} holds several images; add :REF to pick one"))),
    }
}
