//! How ids, positions and headers are described in `/openapi.json`, the same for every route.

use schemas::ids::{MAX_ID_BYTES, MAX_KEY_BYTES, MAX_QUANTITY};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{KnownFormat, ObjectBuilder, Required, Schema, SchemaFormat, Type};

/// Letters, digits, `-_.:@+` and inner spaces; not dots alone.
const ID: &str = r"^(?!\.+$)[A-Za-z0-9._:@+-]([A-Za-z0-9 ._:@+-]*[A-Za-z0-9._:@+-])?$";
fn text(pattern: &str, (min, max): (usize, usize)) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .min_length(Some(min))
        .max_length(Some(max))
}

fn or_null(schema: ObjectBuilder) -> ObjectBuilder {
    schema.schema_type(SchemaType::from_iter([Type::String, Type::Null]))
}

/// A product.
pub fn product_id() -> Schema {
    let schema = text(ID, (1, MAX_ID_BYTES)).description(Some("The product."));
    schema.examples(["demo-sneaker"]).into()
}

/// A buyer.
pub fn buyer_id() -> Schema {
    let schema = text(ID, (1, MAX_ID_BYTES)).description(Some("The buyer."));
    schema.examples(["b-1"]).into()
}

/// An attempt.
pub fn attempt_id() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::Custom("uuid".into())))
        .min_length(Some(36))
        .max_length(Some(36))
        .description(Some("The attempt, a UUID."))
        .into()
}

/// A command.
pub fn command_id() -> Schema {
    let schema = text("^[0-9]{1,10}-[0-9]{1,19}$", (3, 30));
    let schema = schema.description(Some("The command: its partition, a hyphen, its offset."));
    schema.examples(["3-1842"]).into()
}

/// Units of one attempt.
pub fn quantity() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(1))
        .maximum(Some(MAX_QUANTITY))
        .description(Some("The requested units."))
        .examples([1])
        .into()
}

/// Where the next page starts, in an answer; null when there is none.
pub fn next_cursor() -> Schema {
    let schema = text("^([0-9a-f]{2})+$", (2, 2 * MAX_ID_BYTES));
    let description = "Where the next page starts, for `after`; null when there is none.";
    or_null(schema).description(Some(description)).into()
}

/// The parameter `product_id` of a path.
pub struct ProductInPath;

/// The parameter `attempt_id` of a path.
pub struct AttemptInPath;

/// The parameter `command_id` of a path.
pub struct CommandInPath;

/// The header `X-Buyer-Id`.
pub struct BuyerHeader;

/// The header `X-Buyer-Id` where it may be absent.
pub struct OptionalBuyerHeader;

/// The header `Idempotency-Key`.
pub struct KeyHeader;

fn parameter(
    name: &str,
    location: ParameterIn,
    required: Required,
    schema: Schema,
    description: &str,
) -> Vec<Parameter> {
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(location)
        .required(required)
        .schema(Some(schema))
        .description(Some(description));
    vec![parameter.build()]
}

impl IntoParams for ProductInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let (location, required) = (ParameterIn::Path, Required::True);
        parameter(
            "product_id",
            location,
            required,
            product_id(),
            "The product.",
        )
    }
}

impl IntoParams for AttemptInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let (location, required) = (ParameterIn::Path, Required::True);
        let description = "The attempt, a UUID. An order has the id of its attempt.";
        parameter("attempt_id", location, required, attempt_id(), description)
    }
}

impl IntoParams for CommandInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let (location, required) = (ParameterIn::Path, Required::True);
        let description = "The command: its partition, a hyphen, its offset.";
        parameter("command_id", location, required, command_id(), description)
    }
}

impl IntoParams for OptionalBuyerHeader {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let (location, required) = (ParameterIn::Header, Required::False);
        let description = "The buyer who sends the request; needed for a buyer's own command.";
        parameter("X-Buyer-Id", location, required, buyer_id(), description)
    }
}

impl IntoParams for BuyerHeader {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let (location, required) = (ParameterIn::Header, Required::True);
        let description = "The buyer who sends the request.";
        parameter("X-Buyer-Id", location, required, buyer_id(), description)
    }
}

/// The header `If-Match` of a change of a sale.
pub struct IfMatchHeader;

impl IntoParams for IfMatchHeader {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let (location, required) = (ParameterIn::Header, Required::False);
        let schema = text("^\"[0-9]{1,19}\"$", (3, 21));
        let description = "The `ETag` of the sale that the change was made for. If the sale has \
                           changed since, the change is refused with `version_differs`; attempts and \
                           orders do not change the sale.";
        parameter("If-Match", location, required, schema.into(), description)
    }
}

impl IntoParams for KeyHeader {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let (location, required) = (ParameterIn::Header, Required::False);
        // Quotes around the key do not count; escapes within them may double its length.
        let schema = text("^[!-~]+$", (1, 2 * MAX_KEY_BYTES + 2));
        let description = "The client's own key for the attempt, 1 to 255 visible ASCII \
                           characters, bare or in double quotes.";
        parameter(
            "Idempotency-Key",
            location,
            required,
            schema.into(),
            description,
        )
    }
}
