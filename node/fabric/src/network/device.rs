//! The TUN device: where the kernel hands over packets for other nodes, and takes theirs.

use std::io;
use std::path::Path;

use tun_rs::{AsyncDevice, DeviceBuilder, GROTable, VIRTIO_NET_HDR_LEN};

/// The longest packet in bytes: the least that IPv6 asks of a path (RFC 8200 §5).
pub const MTU: u16 = 1280;
/// Packets at a time. 64 KiB of a stream in segments of 512 bytes, the smallest that path MTU discovery makes.
pub(super) const BATCH: usize = 128;
/// The longest that the kernel hands over, with its header.
const READ_BYTES: usize = VIRTIO_NET_HDR_LEN + (64 << 10);
/// A buffer that merged packets have made longer is cut back to this.
const SLOT_BYTES: usize = 2048;

/// A device that goes when this is dropped.
pub(super) struct Device {
    tun: AsyncDevice,
}

impl Device {
    /// Makes the device in the network namespace of the calling thread.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let tun = DeviceBuilder::new().name(name).mtu(MTU).offload(true).enable(false).build_sync()?;
        // The kernel would announce itself over it; and what is not there is no way around a rule.
        let ipv6 = Path::new("/proc/sys/net/ipv6/conf").join(name).join("disable_ipv6");
        if ipv6.exists() {
            std::fs::write(ipv6, "1")?;
        }
        tun.enabled(true)?;
        // Only now: a device that is down is not writable, and its becoming so is not told to who waits already.
        Ok(Self { tun: AsyncDevice::new(tun)? })
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader {
            tun: &self.tun,
            raw: vec![0; READ_BYTES],
            packets: vec![[0; MTU as usize]; BATCH],
            lengths: vec![0; BATCH],
        }
    }

    pub(super) fn writer(&self) -> Writer<'_> {
        Writer { tun: &self.tun, merging: None, slots: vec![Vec::new(); BATCH], used: 0 }
    }
}

/// Takes packets from the kernel, whole streams of them cut into packets.
pub(super) struct Reader<'a> {
    tun: &'a AsyncDevice,
    raw: Vec<u8>,
    packets: Vec<[u8; MTU as usize]>,
    lengths: Vec<usize>,
}

impl Reader<'_> {
    /// Waits for packets and returns them.
    ///
    /// # Errors
    /// With an error number of the kernel if the device is gone; without one if a single hand-over cannot be read.
    pub(super) async fn read(&mut self) -> io::Result<impl Iterator<Item = &[u8]>> {
        let count = self.tun.recv_multiple(&mut self.raw, &mut self.packets, &mut self.lengths, 0).await?;
        let lengths = self.lengths.iter().copied();
        Ok(self.packets.iter().zip(lengths).take(count).map(|(packet, length)| packet.get(..length).unwrap_or(&[])))
    }
}

/// Gives packets to the kernel, those of one stream merged.
pub(super) struct Writer<'a> {
    tun: &'a AsyncDevice,
    /// From the first packet on: it takes 1.7 MiB, and a node without peers has none.
    merging: Option<GROTable>,
    slots: Vec<Vec<u8>>,
    used: usize,
}

impl Writer<'_> {
    /// Lines up a packet for [`Writer::flush`]. Beyond [`BATCH`] it is not taken: `false`.
    pub(super) fn push(&mut self, packet: &[u8]) -> bool {
        let Some(slot) = self.slots.get_mut(self.used) else { return false };
        slot.clear();
        slot.shrink_to(SLOT_BYTES);
        slot.resize(VIRTIO_NET_HDR_LEN, 0);
        slot.extend_from_slice(packet);
        self.used += 1;
        true
    }

    /// Writes what was lined up.
    ///
    /// # Errors
    /// As the kernel refused the last that it did not take; others may have been written.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let slots = self.slots.get_mut(..std::mem::take(&mut self.used)).unwrap_or_default();
        if slots.is_empty() {
            return Ok(());
        }
        let merging = self.merging.get_or_insert_with(GROTable::new);
        self.tun.send_multiple(merging, slots, VIRTIO_NET_HDR_LEN).await.map(|_| ())
    }
}

/// Whether the device is not there any more, rather than one packet refused.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use nix::libc::{EBADF, EBADFD, ENODEV, ENXIO};
    matches!(error.raw_os_error(), Some(EBADF | EBADFD | ENODEV | ENXIO))
}
