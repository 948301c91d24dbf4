//! Takes the ELF out of a Linux bzImage: QEMU starts that directly (PVH), without unpacking in the guest.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::error::{ImageError, IoContext};
use super::tool::Tool;

/// Where the header of the boot protocol says what (Documentation/arch/x86/boot.rst).
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

/// Writes the ELF of `bzimage` to `vmlinux`, using `scratch` for the packed form.
pub(super) async fn extract(bzimage: &Path, vmlinux: &Path, scratch: &Path) -> Result<(), ImageError> {
    let image = std::fs::read(bzimage).on("read", bzimage)?;
    let packed = payload(&image).map_err(|problem| ImageError::unexpected(bzimage.display().to_string(), problem))?;
    std::fs::write(scratch, packed).on("write", scratch)?;
    let output = File::create(vmlinux).on("create", vmlinux)?;
    Tool::new("xz", "xz-utils", "unpacking the kernel")
        .args(["-dc", "-T0"])
        .stdin(File::open(scratch).on("open", scratch)?)
        .stdout(output)
        .limit(Duration::from_secs(120))
        .run()
        .await?;
    let mut head = [0; 4];
    let file = File::open(vmlinux).on("open", vmlinux)?;
    std::io::Read::read_exact(&mut &file, &mut head).on("read", vmlinux)?;
    if head != *b"\x7fELF" {
        return Err(ImageError::unexpected(bzimage.display().to_string(), "its payload is not an ELF"));
    }
    Ok(())
}

fn payload(image: &[u8]) -> Result<&[u8], &'static str> {
    let number = |at: usize| {
        let bytes = image.get(at..at + 4).ok_or("is too short for a kernel")?;
        Ok::<_, &'static str>(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err("is not a bzImage");
    }
    let sectors = match image[SETUP_SECTS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + number(PAYLOAD_OFFSET)?;
    // The last four bytes are the unpacked size, not part of the stream.
    let length = number(PAYLOAD_LENGTH)?.checked_sub(4).ok_or("has no payload")?;
    let packed = image.get(start..start + length).ok_or("is shorter than its header says")?;
    if packed.starts_with(XZ_MAGIC) { Ok(packed) } else { Err("is not packed with xz") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_kernel_is_refused() {
        assert!(payload(&[]).is_err());
        assert!(payload(&[0; 4096]).is_err());
        let mut image = vec![0; 4096];
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(payload(&image).is_err());
    }
}
