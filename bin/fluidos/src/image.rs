//! `fluidos image`: the images of this machine. It works beside a running node and without one.
#![allow(clippy::print_stdout)] // the answer of a verb

mod bar;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use engine_images::{Caller, ImageStore, Reference, Registry};

use bar::Bar;

/// What is done with images.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Image {
    /// Load an OCI layout (folder or tar), an OCI archive or a Docker archive.
    Load {
        /// The file or folder.
        file: PathBuf,
        /// What an archive without a name in it shall be called.
        #[arg(long)]
        name: Option<Reference>,
        #[command(flatten)]
        place: Place,
    },
    /// Pull an image from a registry. It is then for every pod of this node, whatever credentials it was pulled with.
    Pull {
        /// The image, as `docker.io/library/nginx:1.25`.
        reference: Reference,
        /// Credentials: docker's config.json. Programs that give out credentials (credHelpers, credsStore) are not run.
        #[arg(long, env = "FLUIDOS_REGISTRY_CONFIG", value_name = "FILE")]
        registry_config: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// List the images.
    #[command(visible_alias = "list")]
    Ls {
        /// How to print: `table` or `json`.
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        output: String,
        #[command(flatten)]
        place: Place,
    },
    /// Forget an image, and what no other image needs of it.
    Rm {
        /// The image.
        reference: Reference,
        #[command(flatten)]
        place: Place,
    },
}

/// Whose images.
#[derive(clap::Args, Clone, Debug)]
pub struct Place {
    /// The node's directory.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_parser = crate::cli::up::directory)]
    data_dir: PathBuf,
}

/// Does what the verb says.
pub fn run(image: &Image) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match image {
            Image::Load { file, name, place } => load(&place.data_dir, file, name.clone()).await,
            Image::Pull { reference, registry_config, place } => {
                pull(&place.data_dir, reference, registry_config.clone()).await
            }
            Image::Ls { output, place } => list(&place.data_dir, output).await,
            Image::Rm { reference, place } => remove(&place.data_dir, reference).await,
        }
    })
}

fn store(data_dir: &Path) -> Result<ImageStore> {
    if !data_dir.is_dir() {
        bail!("--data-dir {}: no node has run there; run `fluidos up` first", data_dir.display());
    }
    ImageStore::open(data_dir.join("kubelet/images")).with_context(|| format!("images in {}", data_dir.display()))
}

async fn load(data_dir: &Path, file: &Path, name: Option<Reference>) -> Result<()> {
    let bar = Bar::begin(&format!("loading {}", file.display()));
    let brought =
        store(data_dir)?.load_told(file, name, bar).await.with_context(|| format!("image load {}", file.display()))?;
    if brought.is_empty() {
        bail!("image load {}: it names no image; give one with --name", file.display());
    }
    for image in brought {
        println!("{} {} ({})", image.reference, image.digest, human(image.size_bytes));
    }
    Ok(())
}

async fn pull(data_dir: &Path, reference: &Reference, config: Option<PathBuf>) -> Result<()> {
    let store = store(data_dir)?;
    let registry = Registry::new(config).with_progress(Bar::begin(&format!("pulling {reference}")));
    registry.pull(reference, &Caller::default(), &store).await.with_context(|| format!("image pull {reference}"))?;
    let size: u64 = store.blobs(reference).await?.iter().map(|b| b.size).sum();
    println!("{reference} ({})", human(size));
    Ok(())
}

async fn list(data_dir: &Path, output: &str) -> Result<()> {
    let images = store(data_dir)?.list().await?;
    if output == "json" {
        println!("{}", serde_json::to_string_pretty(&images)?);
        return Ok(());
    }
    let width = images.iter().map(|i| i.reference.len()).max().unwrap_or(0).max("IMAGE".len());
    println!("{:<width$}  {:<19}  SIZE", "IMAGE", "DIGEST");
    for image in images {
        let owner = if image.realm.is_empty() { String::new() } else { format!("  for pods of {}", image.realm) };
        println!("{:<width$}  {:.19}  {}{owner}", image.reference, image.digest.to_string(), human(image.size_bytes));
    }
    Ok(())
}

async fn remove(data_dir: &Path, reference: &Reference) -> Result<()> {
    if !store(data_dir)?.remove(reference).await? {
        bail!("image rm {reference}: no such image; `fluidos image ls` lists them");
    }
    println!("{reference} removed");
    Ok(())
}

/// Bytes in powers of 1024, as `12.3 MiB`.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_read_well() {
        for (bytes, expected) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(super::human(bytes), expected);
        }
    }
}
