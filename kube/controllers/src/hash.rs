//! Short names for templates. No effects.
use k8s_openapi::api::core::v1::PodTemplateSpec;

/// A short name for a template: FNV-1a of its text and the number of collisions, in letters that spell no words.
pub(crate) fn short(template: &PodTemplateSpec, collisions: i32) -> String {
    // A template is made of what came as JSON, so it can be written as JSON.
    let text = serde_json::to_string(template).unwrap_or_default();
    let mut hash: u32 = 0x811c_9dc5;
    let collisions = Some(collisions).filter(|count| *count > 0).map(|count| count.to_string()).unwrap_or_default();
    for byte in text.bytes().chain(collisions.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}
