//! What a buyer asks for: the filters of a `Solver`'s selector, in the official shape.
//!
//! ```yaml
//! cpuFilter:  {name: Range, data: {min: "1000m", max: "4"}}
//! podsFilter: {name: Match, data: {value: 110}}
//! gpuFilter:  {name: Range, data: {min: 1}}             # nvidia.com/gpu
//! extendedResourceFilters:                              # ours: what pods ask for by these names
//!   example.com/fpga: {name: Range, data: {min: 1}}
//! planFilter: {name: Match, data: {value: web/small}}   # ours: a package of fixed size, OFFER/PLAN
//! ```

use serde_json::{Map, Value, json};

use super::{Amounts, ExtendedResource, Quantity, QuantityError, Resource};
use crate::service::ServiceSelector;

/// At most this many alternatives of one text filter: more is no selection.
const ALTERNATIVES_MAX: usize = 64;
/// Resources that one selector filters: four of every node, and as many extended ones as a container could ask for at most in practice.
const FILTERS_MAX: usize = 16;

/// A filter over a quantity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuantityFilter {
    /// Exactly this much.
    Match(Quantity),
    /// Between these, both included; at least one is given.
    Range {
        /// The least.
        min: Option<Quantity>,
        /// The most.
        max: Option<Quantity>,
    },
}

/// A filter over a text. Upper and lower case are the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TextFilter {
    /// This text.
    Match(String),
    /// One of these texts (`Range` with `values`).
    OneOf(Vec<String>),
}

/// The filters over a K8Slice. What is not filtered is bought whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct K8SliceSelector {
    /// `architectureFilter`.
    pub architecture: Option<TextFilter>,
    /// `planFilter` (ours): a plan, as `OFFER/PLAN`.
    pub plan: Option<TextFilter>,
    /// `cpuFilter`, `memoryFilter`, `podsFilter`, `storageFilter`, `gpuFilter`, `extendedResourceFilters`: each resource at most once.
    pub quantities: Vec<(Resource, QuantityFilter)>,
}

/// A filter as texts: how it travels. No type of the wire and no kind is needed to say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FilterText {
    /// The named characteristic is this.
    Match {
        /// `architecture`, `plan`, `cpu`, `memory`, `pods`, `storage`, or an extended resource.
        name: String,
        /// The value.
        value: String,
    },
    /// The named characteristic is between these, both included.
    Range {
        /// `cpu`, `memory`, `pods`, `storage`, or an extended resource.
        name: String,
        /// The least.
        min: Option<String>,
        /// The most.
        max: Option<String>,
    },
}

impl FilterText {
    fn name(&self) -> &str {
        match self {
            Self::Match { name, .. } | Self::Range { name, .. } => name,
        }
    }
}

/// Why filters are refused. The writer must correct them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectorError {
    /// A filter that nobody knows.
    #[error("filter `{observed}` is not known: needed one of {}", needed.join(", "))]
    Unknown {
        /// Its name.
        observed: String,
        /// Those that are: an object names them in another way than the wire.
        needed: &'static [&'static str; 8],
    },
    /// A filter of the wrong shape.
    #[error("filter `{filter}`: {reason}")]
    Shape {
        /// Which filter.
        filter: String,
        /// What is wrong and what was needed.
        reason: String,
    },
    /// A number that is none.
    #[error("filter `{filter}`: {source}")]
    Quantity {
        /// Which filter.
        filter: String,
        /// What is wrong.
        source: QuantityError,
    },
}

static NAMES: [&str; 8] = [
    "architectureFilter",
    "cpuFilter",
    "memoryFilter",
    "podsFilter",
    "storageFilter",
    "gpuFilter",
    "extendedResourceFilters",
    "planFilter",
];
static NAMES_ON_THE_WIRE: [&str; 8] = [
    "architecture",
    "cpu",
    "memory",
    "pods",
    "storage",
    "gpu",
    "an extended resource such as example.com/fpga",
    "plan",
];

impl K8SliceSelector {
    /// Returns the filters that a Solver's `selector.filters` says; absent or `null` filters nothing.
    ///
    /// # Errors
    /// [`SelectorError`] names the filter and what it needs.
    pub fn from_json(filters: &Value) -> Result<Self, SelectorError> {
        let fields = match filters {
            Value::Null => return Ok(Self::default()),
            Value::Object(fields) => fields,
            other => return Err(shape("filters", format!("observed {other}, needed an object"))),
        };
        let mut selector = Self::default();
        for (name, filter) in fields.iter().filter(|(_, filter)| !filter.is_null()) {
            if name == NAMES[0] {
                selector.architecture = Some(TextFilter::from_json(name, filter)?);
                continue;
            }
            if name == "planFilter" {
                selector.plan = Some(TextFilter::from_json(name, filter)?);
                continue;
            }
            if name == "extendedResourceFilters" {
                for named in extended(name, filter)? {
                    let (resource, filter) = named?;
                    let range = QuantityFilter::from_json(resource.name(), filter)?;
                    selector.filter(resource, range)?;
                }
                continue;
            }
            let short = name.strip_suffix("Filter").filter(|short| !short.contains(['/', '-']));
            let resource = Resource::parse(short.unwrap_or_default()).map_err(|_| unknown(name, &NAMES))?;
            selector.filter(resource, QuantityFilter::from_json(name, filter)?)?;
        }
        Ok(selector)
    }

    /// Two filters over one thing could contradict each other; which one counts must not be a guess.
    fn filter(&mut self, resource: Resource, filter: QuantityFilter) -> Result<(), SelectorError> {
        if self.quantity(&resource).is_some() {
            return Err(shape(resource.name(), "stands there twice, needed once".into()));
        }
        if self.quantities.len() >= FILTERS_MAX {
            return Err(shape(
                resource.name(),
                format!("there are {FILTERS_MAX} filters before it, which is the most"),
            ));
        }
        self.quantities.push((resource, filter));
        Ok(())
    }

    /// Returns the selector of filters that came as texts.
    ///
    /// # Errors
    /// [`SelectorError`] names the filter and what it needs.
    pub fn from_texts(filters: &[FilterText]) -> Result<Self, SelectorError> {
        let mut selector = Self::default();
        for (index, filter) in filters.iter().enumerate() {
            if filters[..index].iter().any(|earlier| earlier.name() == filter.name()) {
                return Err(shape(filter.name(), "stands there twice, needed once".into()));
            }
            match filter {
                FilterText::Match { name, value } if name == "architecture" => {
                    selector.architecture = Some(TextFilter::Match(value.clone()));
                }
                FilterText::Match { name, value } if name == "plan" => {
                    selector.plan = Some(TextFilter::Match(value.clone()));
                }
                FilterText::Match { name, value } => {
                    selector.filter(filtered(name)?, QuantityFilter::Match(parse(name, value)?))?;
                }
                FilterText::Range { name, min, max } => {
                    let bound = |text: &Option<String>| text.as_ref().map(|text| parse(name, text)).transpose();
                    let range = QuantityFilter::range(name, bound(min)?, bound(max)?)?;
                    selector.filter(filtered(name)?, range)?;
                }
            }
        }
        Ok(selector)
    }

    /// Returns the filters as texts, to be sent. A choice of architectures or plans has no form on the wire and is left out: whoever
    /// asks checks the answers again.
    pub fn to_texts(&self) -> Vec<FilterText> {
        let text = |name: &str, filter: &Option<TextFilter>| match filter {
            Some(TextFilter::Match(value)) => Some(FilterText::Match { name: name.into(), value: value.clone() }),
            Some(TextFilter::OneOf(_)) | None => None,
        };
        let texts = [text("architecture", &self.architecture), text("plan", &self.plan)];
        let quantities = self.quantities.iter().map(|(resource, filter)| {
            let name = resource.name().to_owned();
            match filter {
                QuantityFilter::Match(value) => FilterText::Match { name, value: value.to_string() },
                QuantityFilter::Range { min, max } => {
                    let text = |bound: &Option<Quantity>| bound.map(|bound| bound.to_string());
                    FilterText::Range { name, min: text(min), max: text(max) }
                }
            }
        });
        texts.into_iter().flatten().chain(quantities).collect()
    }

    /// Returns what is asked for at least, 0 where nothing is: what a surplus is measured by.
    pub fn wanted(&self) -> Amounts {
        let mut wanted = Amounts::default();
        for (resource, filter) in &self.quantities {
            let least = match filter {
                QuantityFilter::Match(value) => Some(*value),
                QuantityFilter::Range { min, .. } => *min,
            };
            wanted.set(resource, least.map_or(0, |least| resource.asked(least)));
        }
        wanted
    }

    /// Returns an amount of 1 of each resource that is filtered: to go through their names.
    pub fn named(&self) -> Amounts {
        let mut named = Amounts::default();
        self.quantities.iter().for_each(|(resource, _)| named.set(resource, 1));
        named
    }

    /// Returns the filter over one resource, if there is one.
    pub fn quantity(&self, resource: &Resource) -> Option<&QuantityFilter> {
        self.quantities.iter().find(|(filtered, _)| filtered == resource).map(|(_, filter)| filter)
    }
}

/// Returns the filters of a Solver that wants at least this much of everything that is not 0.
pub fn filters_of(least: &Amounts) -> Map<String, Value> {
    let (mut filters, mut devices) = (Map::new(), Map::new());
    for resource in least.resources().filter(|resource| least.get(resource) != 0) {
        let range = json!({"name": "Range", "data": {"min": resource.text(least.get(&resource))}});
        match &resource {
            Resource::Extended(name) => devices.insert(name.to_string(), range),
            native => filters.insert(format!("{}Filter", native.name()), range),
        };
    }
    if !devices.is_empty() {
        filters.insert("extendedResourceFilters".into(), devices.into());
    }
    filters
}

impl ServiceSelector {
    /// Returns the filters that a Solver's `selector.filters` says of a service; absent or `null` filters nothing.
    ///
    /// # Errors
    /// A sentence that names the filter and what it needs.
    pub fn from_json(filters: &Value) -> Result<Self, String> {
        let fields = match filters {
            Value::Null => return Ok(Self::default()),
            Value::Object(fields) => fields,
            other => return Err(format!("filters: observed {other}, needed an object")),
        };
        let mut selector = Self::default();
        for (name, filter) in fields.iter().filter(|(_, filter)| !filter.is_null()) {
            let read = TextFilter::from_json(name, filter).map_err(|error| error.to_string());
            match name.as_str() {
                "categoryFilter" => selector.category = Some(read?),
                "tagsFilter" => selector.tags = Some(read?),
                other => {
                    let other: String = other.chars().take(64).collect();
                    return Err(format!("filter `{other}` is not known: needed one of categoryFilter, tagsFilter"));
                }
            }
        }
        Ok(selector)
    }
}

impl QuantityFilter {
    /// Returns a range after checking it.
    ///
    /// # Errors
    /// [`SelectorError::Shape`] if it has no bound, or its least is above its most.
    pub fn range(filter: &str, min: Option<Quantity>, max: Option<Quantity>) -> Result<Self, SelectorError> {
        match (min, max) {
            (None, None) => Err(shape(filter, "Range has neither min nor max, needed at least one".into())),
            (Some(min), Some(max)) if min > max => {
                Err(shape(filter, format!("min {min} is above max {max}, needed min <= max")))
            }
            _ => Ok(Self::Range { min, max }),
        }
    }

    fn from_json(filter: &str, value: &Value) -> Result<Self, SelectorError> {
        let (name, data) = name_and_data(filter, value)?;
        match name {
            "Match" => match quantity(filter, &data["value"])? {
                Some(value) => Ok(Self::Match(value)),
                None => Err(shape(filter, "Match has no data.value".into())),
            },
            "Range" => Self::range(filter, quantity(filter, &data["min"])?, quantity(filter, &data["max"])?),
            other => Err(wrong_name(filter, other)),
        }
    }
}

impl TextFilter {
    /// Says whether the text is what is asked for.
    pub fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Match(value) => value.eq_ignore_ascii_case(text),
            Self::OneOf(values) => values.iter().any(|value| value.eq_ignore_ascii_case(text)),
        }
    }

    fn from_json(filter: &str, value: &Value) -> Result<Self, SelectorError> {
        let (name, data) = name_and_data(filter, value)?;
        let text = |value: &Value| match value.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(shape(filter, format!("observed {value}, needed a text"))),
        };
        match name {
            "Match" => Ok(Self::Match(text(&data["value"])?)),
            "Range" => match &data["values"] {
                Value::Array(values) if (1..=ALTERNATIVES_MAX).contains(&values.len()) => {
                    Ok(Self::OneOf(values.iter().map(text).collect::<Result<_, _>>()?))
                }
                _ => Err(shape(
                    filter,
                    format!("Range needs data.values, 1 to {ALTERNATIVES_MAX} texts; regex is not built"),
                )),
            },
            other => Err(wrong_name(filter, other)),
        }
    }
}

impl std::fmt::Display for TextFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Match(value) => f.write_str(value),
            Self::OneOf(values) => write!(f, "one of {}", values.join(", ")),
        }
    }
}

fn name_and_data<'a>(filter: &str, value: &'a Value) -> Result<(&'a str, &'a Value), SelectorError> {
    match (value["name"].as_str(), &value["data"]) {
        (Some(name), data @ Value::Object(_)) => Ok((name, data)),
        _ => Err(shape(filter, "needed {name: Match or Range, data: {…}}".into())),
    }
}

fn unknown(name: &str, needed: &'static [&'static str; 8]) -> SelectorError {
    SelectorError::Unknown { observed: name.chars().take(64).collect(), needed }
}

fn filtered(name: &str) -> Result<Resource, SelectorError> {
    Resource::parse(name).map_err(|_| unknown(name, &NAMES_ON_THE_WIRE))
}

/// The filters over extended resources, by their names.
fn extended<'a>(
    filter: &'a str,
    value: &'a Value,
) -> Result<impl Iterator<Item = Result<(Resource, &'a Value), SelectorError>>, SelectorError> {
    let filters = value.as_object().ok_or_else(|| shape(filter, format!("observed {value}, needed an object")))?;
    Ok(filters.iter().map(move |(name, filter_of)| match ExtendedResource::parse(name) {
        Ok(name) => Ok((Resource::Extended(name), filter_of)),
        Err(error) => Err(shape(filter, error.to_string())),
    }))
}

fn parse(filter: &str, text: &str) -> Result<Quantity, SelectorError> {
    Quantity::parse(text).map_err(|source| SelectorError::Quantity { filter: filter.into(), source })
}

/// Official inputs write numbers both as text and as numbers.
fn quantity(filter: &str, value: &Value) -> Result<Option<Quantity>, SelectorError> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return Err(shape(filter, format!("observed {other}, needed a quantity"))),
    };
    parse(filter, &text).map(Some)
}

fn wrong_name(filter: &str, observed: &str) -> SelectorError {
    shape(filter, format!("name is `{}`, needed Match or Range", observed.chars().take(64).collect::<String>()))
}

fn shape(filter: &str, reason: String) -> SelectorError {
    SelectorError::Shape { filter: filter.into(), reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_official_sample_is_read() {
        let selector = K8SliceSelector::from_json(&json!({
            "architectureFilter": {"name": "Match", "data": {"value": "amd64"}},
            "cpuFilter": {"name": "Range", "data": {"min": "1000m"}},
            "memoryFilter": {"name": "Range", "data": {"min": "1Gi", "max": "100Gi"}},
            "podsFilter": {"name": "Match", "data": {"value": 110}},
        }))
        .unwrap();
        assert!(selector.architecture.as_ref().unwrap().accepts("AMD64"));
        assert_eq!(selector.quantity(&Resource::Pods), Some(&QuantityFilter::Match(Quantity::from_units(110))));
        let one_or_more = QuantityFilter::Range { min: Some(Quantity::from_units(1)), max: None };
        assert_eq!(selector.quantity(&Resource::Cpu), Some(&one_or_more));
        assert_eq!(K8SliceSelector::from_json(&Value::Null), Ok(K8SliceSelector::default()));
    }

    #[test]
    fn devices_are_asked_for_by_their_names_and_once() {
        let range = |min: u64| json!({"name": "Range", "data": {"min": min}});
        let filters = json!({"cpuFilter": range(1), "gpuFilter": range(2), "extendedResourceFilters": {"example.com/fpga": range(1)}});
        let selector = K8SliceSelector::from_json(&filters).unwrap();
        assert_eq!(selector.wanted().to_string(), "cpu 1, example.com/fpga 1, nvidia.com/gpu 2");
        assert_eq!(K8SliceSelector::from_texts(&selector.to_texts()), Ok(selector.clone()));
        let written = K8SliceSelector::from_json(&filters_of(&selector.wanted()).into()).unwrap();
        assert_eq!(written.wanted(), selector.wanted());
        for (wrong, told) in [
            (
                json!({"gpuFilter": range(1), "extendedResourceFilters": {"nvidia.com/gpu": range(1)}}),
                "nvidia.com/gpu`: stands there twice",
            ),
            (json!({"extendedResourceFilters": {"fpga": range(1)}}), "\"fpga\" is not traded"),
            (json!({"extendedResourceFilters": range(1)}), "is not traded"),
            (json!({"example.com/fpgaFilter": range(1)}), "is not known: needed one of"),
            (json!({"ephemeral-storageFilter": range(1)}), "is not known: needed one of"),
        ] {
            let error = K8SliceSelector::from_json(&wrong).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let many: Map<String, Value> = (0..=FILTERS_MAX).map(|n| (format!("example.com/d{n}"), range(1))).collect();
        assert!(K8SliceSelector::from_json(&json!({"extendedResourceFilters": many})).is_err());
    }

    #[test]
    fn filters_travel_as_texts() {
        let selector = K8SliceSelector::from_json(&json!({
            "architectureFilter": {"name": "Match", "data": {"value": "amd64"}},
            "cpuFilter": {"name": "Range", "data": {"min": "500m", "max": "4"}},
            "podsFilter": {"name": "Match", "data": {"value": 110}},
            "planFilter": {"name": "Match", "data": {"value": "web/small"}},
        }))
        .unwrap();
        assert_eq!(K8SliceSelector::from_texts(&selector.to_texts()), Ok(selector.clone()));
        assert_eq!(selector.wanted().to_string(), "cpu 500m, pods 110");
        let wrong = FilterText::Match { name: "mods".into(), value: "1".into() };
        let refused = K8SliceSelector::from_texts(&[wrong]).unwrap_err().to_string();
        assert!(refused.ends_with("example.com/fpga, plan"), "{refused}");
        let twice = ["1", "2"].map(|value| FilterText::Match { name: "cpu".into(), value: value.into() });
        assert!(matches!(K8SliceSelector::from_texts(&twice), Err(SelectorError::Shape { .. })));
        let wrong = FilterText::Range { name: "cpu".into(), min: Some("2".into()), max: Some("1".into()) };
        assert!(matches!(K8SliceSelector::from_texts(&[wrong]), Err(SelectorError::Shape { .. })));
    }

    #[test]
    fn a_wrong_filter_is_named_with_what_it_needs() {
        for (filters, expected) in [
            (json!({"modsFilter": {}}), "filter `modsFilter` is not known: needed one of architectureFilter"),
            (json!({"cpuFilter": {"name": "Range", "data": {}}}), "neither min nor max"),
            (json!({"cpuFilter": {"name": "Range", "data": {"min": 2, "max": 1}}}), "min 2 is above max 1"),
            (json!({"cpuFilter": {"name": "Match", "data": {"value": "one"}}}), "`one` is not a quantity"),
            (json!({"cpuFilter": {"name": "Match", "data": {"value": [1]}}}), "observed [1]"),
            (json!({"cpuFilter": {"name": "About", "data": {"value": 1}}}), "name is `About`"),
            (json!({"cpuFilter": 1}), "needed {name"),
            (json!({"architectureFilter": {"name": "Range", "data": {"regex": ".*"}}}), "regex is not built"),
            (json!([]), "needed an object"),
        ] {
            let refused = K8SliceSelector::from_json(&filters).unwrap_err().to_string();
            assert!(refused.contains(expected), "{filters}: {refused}");
        }
    }
}
