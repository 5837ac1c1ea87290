//! A tar whose headers cannot eat the memory.
//!
//! A name or the attributes of a file may stand in a header of its own (GNU long names, pax records), which the reader of the archive takes
//! into memory whole before it shows the file. How long it is says the archive, and a few MiB of gzip make gigabytes of it. So whatever is
//! read between two files is counted.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use tar::{Archive, Entry};

/// The longest path Linux takes is 4 KiB; the largest extended attribute 64 KiB.
const HEADERS_BYTES_MAX: u64 = 1 << 20;

/// Reads no more than it may.
struct Metered<R> {
    from: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !into.is_empty() {
            return Err(io::Error::other(format!(
                "names or attributes of an entry are over {HEADERS_BYTES_MAX} bytes"
            )));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let read = self.from.read(into.get_mut(..most).unwrap_or_default())?;
        if left != u64::MAX {
            self.left.set(left - read as u64);
        }
        Ok(read)
    }
}

/// Shows each entry of a tar to `each`, which says whether to go on. What it leaves of an entry is passed over. `failed` says what an error of the
/// archive itself is.
pub(super) fn each_entry<E>(
    from: impl Read,
    failed: impl Fn(io::Error) -> E,
    mut each: impl FnMut(&mut Entry<'_, &mut dyn Read>) -> Result<(), E>,
) -> Result<(), E> {
    let left = Rc::new(Cell::new(0));
    let mut metered = Metered { from, left: left.clone() };
    let mut archive = Archive::new(&mut metered as &mut dyn Read);
    let mut entries = archive.entries().map_err(&failed)?;
    loop {
        left.set(HEADERS_BYTES_MAX);
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry.map_err(&failed)?;
        left.set(u64::MAX);
        each(&mut entry)?;
        io::copy(&mut entry, &mut io::sink()).map_err(&failed)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use std::fs::File;
    use std::io::Write as _;
    use std::path::Path;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use tar::{Builder, EntryType, Header};

    use crate::archive::load;
    use crate::blobs::Blobs;
    use crate::config::{ConfigFile, Index, Manifest};
    use crate::unpack::unpack;

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    }

    /// A gzip of a tar whose first header is so long.
    fn long(kind: EntryType, bytes: u64) -> Vec<u8> {
        let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut long = header(kind, bytes);
        long.set_path("x").unwrap();
        long.set_cksum();
        tar.append(&long, std::io::Read::take(std::io::repeat(b'a'), bytes)).unwrap();
        let mut file = header(EntryType::Regular, 2);
        tar.append_data(&mut file, "etc/name", &b"ok"[..]).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn written(directory: &Path, bytes: &[u8]) -> std::path::PathBuf {
        let path = directory.join("layer.tar.gz");
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    }

    #[test]
    fn a_header_that_is_too_long_is_refused_before_it_is_in_memory() {
        let directory = tempfile::Builder::new().prefix("flt-metered-").tempdir().unwrap();
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            for (bytes, fits) in [(4096, true), (64 << 20, false)] {
                let path = written(directory.path(), &long(kind, bytes));
                let target = tempfile::tempdir_in(directory.path()).unwrap();
                let unpacked = unpack("layer", File::open(&path).unwrap(), target.path());
                let told = unpacked.err().map(|error| error.to_string()).unwrap_or_default();
                assert_eq!(told.contains("over 1048576 bytes"), !fits, "{kind:?} of {bytes}: {told:.200}");
                let blobs = Blobs::open(&target.path().join("store")).unwrap();
                let told = load(&blobs, &path, None, &()).err().map(|error| error.to_string()).unwrap_or_default();
                assert_eq!(told.contains("over 1048576 bytes"), !fits, "{kind:?} of {bytes}: {told:.200}");
            }
        }
    }

    /// A layer with one of each kind of entry.
    fn layer() -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        let mut add = |kind: EntryType, path: &str, to: Option<&str>, bytes: &[u8]| {
            let mut header = header(kind, bytes.len() as u64);
            match to {
                Some(to) => tar.append_link(&mut header, path, to).unwrap(),
                None => tar.append_data(&mut header, path, bytes).unwrap(),
            }
        };
        add(EntryType::Directory, "etc/", None, b"");
        add(EntryType::Regular, "etc/name", None, b"flt");
        add(EntryType::Symlink, "etc/link", Some("../name"), b"");
        add(EntryType::Link, "etc/hard", Some("etc/name"), b"");
        add(EntryType::Regular, &format!("{}/name", "long".repeat(40)), None, b"long");
        add(EntryType::Regular, "etc/.wh.gone", None, b"");
        tar.into_inner().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever somebody makes of a layer: it is unpacked or refused, and nothing is written beside its directory.
        #[test]
        fn a_changed_layer_stays_in_its_directory(changes in proptest::collection::vec((0usize..8192, any::<u8>()), 1..12)) {
            let outside = tempfile::Builder::new().prefix("flt-metered-").tempdir().unwrap();
            let target = outside.path().join("layer");
            std::fs::create_dir(&target).unwrap();
            let mut bytes = layer();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let path = outside.path().join("layer.tar");
            std::fs::write(&path, &bytes).unwrap();
            let _ = unpack("layer", File::open(&path).unwrap(), &target);
            let mut beside: Vec<_> = std::fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            beside.sort();
            prop_assert_eq!(beside, ["layer", "layer.tar"]);
        }

        #[test]
        fn any_bytes_are_a_document_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Manifest::parse("manifest", &bytes);
            let _ = serde_json::from_slice::<Index>(&bytes);
            let _ = serde_json::from_slice::<ConfigFile>(&bytes);
        }

        #[test]
        fn a_changed_manifest_is_one_or_refused(at in 0usize..400, byte in any::<u8>()) {
            let digest = format!("sha256:{}", "ab".repeat(32));
            let descriptor = format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":3}}"#);
            let mut bytes = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#).into_bytes();
            prop_assert!(Manifest::parse("manifest", &bytes).is_ok());
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(manifest) = Manifest::parse("manifest", &bytes) {
                prop_assert_eq!(manifest.blobs().count(), 2);
            }
        }
    }
}
