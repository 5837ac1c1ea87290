//! What is bought and sold: exact amounts and money, filters, partitions, the ledger, policies, ranking, and the reasons in
//! words.
//!
//! A **pool** is capacity of one owner that is sold as one flavor. A **hold** is a promise for some seconds, a
//! **commitment** one for as long as a contract lasts. What is held or committed is never promised twice.
//!
//! ```text
//!   selector ──matches──► offer ──amounts──► rank ──► hold ──► commit ──► release
//! ```

mod accepted;
mod amounts;
mod buffer;
mod buying;
mod conditions;
mod ended;
mod features;
mod kept;
mod ledger;
mod money;
mod offer;
mod partition;
mod plan;
mod price;
mod quantity;
mod rank;
mod rate;
mod renewal;
mod resale;
mod resource;
mod selector;
mod sharing;
mod split;
mod usage;

pub use accepted::Accepted;
pub use amounts::{Amounts, Extended};
pub use buffer::{Buffer, BufferPlan, BufferStep, LOTS_MAX, Lot, LotState, buffer_plan};
pub use buying::{Buying, BuyingRefusal, Ceiling, ENDED_MAX, Expense, LeastRating, Purchase, may_buy};
pub use conditions::{BusinessModel, Conditions, ConditionsError, MeasuredBy, Objective, ServiceLevel};
pub use ended::Ended;
pub use features::Features;
pub use kept::Kept;
pub use ledger::{
    Agreed, AgreedService, COMMITMENTS_MAX, Commitment, CommitmentState, HOLDS_PER_BUYER_MAX, HoldRequest,
    LedgerRefusal, Pool,
};
pub(crate) use money::half_even;
pub use money::{Currency, Decimal, Money, MoneyError};
pub use offer::{Fit, Location, Mismatch, Offer};
pub use partition::Partitionability;
pub use plan::Plan;
pub use price::{Charge, Period, Price, PriceError, Unit, UnitPrice, month_of};
pub use quantity::{Quantity, QuantityError};
pub use rank::{Candidate, Criterion, Ranked, rank};
pub use rate::{Rate, RateError, Situation};
pub use renewal::{Renewal, RenewalRefusal, renewed};
pub use resale::{HOPS_MAX, HOPS_USUAL, Margin, MarginError, Reselling, sold_on};
pub use resource::{ExtendedResource, Resource, ResourceError};
pub use selector::{FilterText, K8SliceSelector, QuantityFilter, SelectorError, TextFilter, filters_of};
pub use sharing::{Asker, Sale, Sharing, SharingRefusal, credit, sale, utilisation};
pub use split::{PARTS_MAX, Split, SplitError};
pub use usage::{SHARE_MOST, requested, requested_of_traded, share};
