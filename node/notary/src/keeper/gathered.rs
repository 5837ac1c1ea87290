//! What is gathered from everything that is known, kept until something of it changes. Pure.
//!
//! A node may know thousands that go on as before: they are walked when one of them has changed, not at each look.

use std::sync::Arc;

/// A value, and what it was made of.
#[derive(Debug)]
pub(super) struct Gathered<M, T>(Option<(M, Arc<T>)>);

impl<M, T> Default for Gathered<M, T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<M: PartialEq, T> Gathered<M, T> {
    /// The value that belongs to this mark; it is made anew if the mark is another than the last time.
    pub(super) fn get(&mut self, mark: M, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some((known, value)) = &self.0
            && *known == mark
        {
            return value.clone();
        }
        let value = Arc::new(make());
        self.0 = Some((mark, value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_is_walked_once() {
        let (mut gathered, mut walks) = (Gathered::default(), 0);
        for mark in [1, 1, 1, 2, 2, 1] {
            let value = gathered.get(mark, || {
                walks += 1;
                mark * 10
            });
            assert_eq!(*value, mark * 10);
        }
        assert_eq!(walks, 3);
    }
}
