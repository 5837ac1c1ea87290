//! Who asks: the question needs no words.

use crate::kinds::Description;

pub static KIND: Description = Description {
    namespaced: false,
    verbs: &["create"],
    ..Description::of(["authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews"])
};
