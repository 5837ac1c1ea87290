//! What a zone has answered, as bytes: who asks the same again is told the same, but for the number of the question.
//!
//! It belongs to a zone and goes with it, so it is never older than the Services are. Answers of the machine's resolvers are in
//! [`super::cache`], as they end by time.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Of questions and answers together: some thousand names.
const BYTES_MAX: usize = 1 << 20;
/// A question longer than this is nobody's name.
const QUESTION_MAX: usize = 512;

/// See the module.
#[derive(Default)]
pub(crate) struct Said {
    /// To those who are told addresses of one family, and of both.
    answers: [Mutex<Answers>; 2],
}

#[derive(Default)]
struct Answers {
    /// By the question from its third byte on.
    by_question: HashMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
}

impl Said {
    /// What was answered to this question.
    pub fn find(&self, question: &[u8], both: bool) -> Option<Vec<u8>> {
        let answers = self.answers[usize::from(both)].lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = answers.by_question.get(question.get(2..)?)?.clone();
        answer.get_mut(..2)?.copy_from_slice(question.get(..2)?);
        Some(answer)
    }

    /// Keeps an answer. When there is no room, it begins anew: what is asked for is soon there again.
    pub fn keep(&self, question: &[u8], both: bool, answer: &[u8]) {
        let Some(key) = question.get(2..).filter(|key| key.len() <= QUESTION_MAX) else { return };
        let size = key.len() + answer.len();
        let mut answers = self.answers[usize::from(both)].lock().unwrap_or_else(PoisonError::into_inner);
        if answers.bytes + size > BYTES_MAX {
            *answers = Answers::default();
        }
        if answers.by_question.insert(key.to_vec(), answer.to_vec()).is_none() {
            answers.bytes += size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_has_the_same_answer_under_its_own_number() {
        let said = Said::default();
        said.keep(b"\x00\x01question", true, b"\x00\x01answer");
        assert_eq!(said.find(b"\x12\x34question", true).as_deref(), Some(&b"\x12\x34answer"[..]));
        assert_eq!(said.find(b"\x12\x34question", false), None, "told to those of both families alone");
        assert_eq!(said.find(b"\x12\x34another", true), None);
        assert_eq!(said.find(b"\x12", true), None);
    }

    #[test]
    fn it_is_bounded() {
        let said = Said::default();
        let question = |number: usize| [b"\x00\x00", number.to_string().as_bytes()].concat();
        let answer = [0; 1000];
        for number in 0..10_000 {
            said.keep(&question(number), false, &answer);
        }
        let kept = (0..10_000).filter(|number| said.find(&question(*number), false).is_some()).count();
        assert!((1..=BYTES_MAX / 1000).contains(&kept), "{kept}");
        said.keep(&[0; QUESTION_MAX + 3], false, &answer);
        assert_eq!(said.find(&[0; QUESTION_MAX + 3], false), None);
    }
}
