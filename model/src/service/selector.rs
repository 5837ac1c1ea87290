//! What is asked for of a service, by category and tags.

use crate::kinds::ServiceFlavor;
use crate::market::{FilterText, TextFilter};

/// What a buyer of a service asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceSelector {
    /// `categoryFilter`.
    pub category: Option<TextFilter>,
    /// `tagsFilter`: any of its tags.
    pub tags: Option<TextFilter>,
}

impl ServiceSelector {
    /// Says whether a service is what is asked for, or what it lacks.
    ///
    /// # Errors
    /// What was offered and what was needed.
    pub fn admits(&self, service: &ServiceFlavor) -> Result<(), String> {
        if let Some(filter) = self.category.as_ref().filter(|filter| !filter.accepts(&service.category)) {
            return Err(format!("category: {} offered, needed {filter}", service.category));
        }
        match &self.tags {
            Some(filter) if !service.tags.iter().any(|tag| filter.accepts(tag)) => {
                Err(format!("tags: {} offered, needed {filter}", service.tags.join(", ")))
            }
            _ => Ok(()),
        }
    }
    /// Returns the filters as they travel. What cannot be said there (one of several texts) is left out: what is found is judged by all of
    /// them.
    pub fn to_texts(&self) -> Vec<FilterText> {
        let said = [("category", &self.category), ("tags", &self.tags)];
        let said = said.into_iter().filter_map(|(name, filter)| match filter {
            Some(TextFilter::Match(value)) => Some(FilterText::Match { name: name.into(), value: value.clone() }),
            _ => None,
        });
        said.collect()
    }
}
