//! What a client is told when something is not done: RFC 9457 problem details.
//!
//! One table of codes (code, status, title) and one shape of body. A handler returns a [`Problem`]; the request
//! middleware writes its body, since only there the request's id is known.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::actors::command::AppliedOutcome;

/// Seconds after which a client may ask again, on every 503.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

macro_rules! codes {
    ($($name:ident $status:literal $code:literal $title:literal;)*) => {
        /// Every reason for which this server does not do what it was asked. The names are part of the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Code { $($name,)* }

        impl Code {
            /// All codes.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code, its HTTP status and its title.
            const fn row(self) -> (&'static str, u16, &'static str) {
                match self { $(Self::$name => ($code, $status, $title),)* }
            }
        }
    };
}

codes! {
    ValidationFailed     400 "validation_failed"      "Some fields are not valid";
    MalformedJson        400 "malformed_json"         "The body is not JSON";
    BadRequest           400 "bad_request"            "The request can not be read";
    MailedCodeWrong      400 "invalid_code"           "The code is not valid";
    InventoryMismatch    400 "inventory_mismatch"     "The inventory is another product's";
    CartEmpty            400 "cart_empty"             "The cart is empty";
    Unauthorized         401 "unauthorized"           "A sign-in is needed";
    InvalidCredentials   401 "invalid_credentials"    "The sign-in is not right";
    Forbidden            403 "forbidden"              "Not allowed";
    EmailNotVerified     403 "email_not_verified"     "The e-mail address is not verified";
    AccountSuspended     403 "account_suspended"      "The account is suspended";
    NotFound             404 "not_found"              "There is nothing here";
    ProductNotFound      404 "product_not_found"      "There is no such product";
    InventoryNotFound    404 "inventory_not_found"    "There is no such inventory";
    CartNotFound         404 "cart_not_found"         "There is no such cart";
    ItemNotFound         404 "item_not_found"         "The product is not in the cart";
    OrderNotFound        404 "order_not_found"        "There is no such order";
    ActorNotFound        404 "actor_not_found"        "There is no such actor";
    UserNotFound         404 "user_not_found"         "There is no such user";
    MethodNotAllowed     405 "method_not_allowed"     "The method is not known here";
    RequestTimeout       408 "request_timeout"        "The body took too long";
    EmailTaken           409 "email_taken"            "The e-mail address has an account";
    SkuTaken             409 "sku_taken"              "The SKU is taken";
    InventoryExists      409 "inventory_exists"       "The product has an inventory";
    InsufficientStock    409 "insufficient_stock"     "Not enough in stock";
    QuantityOverflow     409 "quantity_overflow"      "The quantity would be too large";
    TotalOverflow        409 "total_overflow"         "The total would be too large";
    HoldLimit            409 "hold_limit"             "The cart would hold too much";
    HoldExpired          409 "hold_expired"           "The cart's time was over";
    PriceChanged         409 "price_changed"          "The total is another than expected";
    CartOrdered          409 "cart_ordered"           "The cart has become an order";
    InvalidTransition    409 "invalid_transition"     "The order's status does not allow it";
    UserExists           409 "user_exists"            "The user has a profile";
    LastAdmin            409 "last_admin"             "The last administrator stays";
    InProgress           409 "in_progress"            "The same request is still running";
    BodyTooLarge         413 "body_too_large"         "The body is too large";
    UnsupportedMediaType 415 "unsupported_media_type" "The body has another type than JSON";
    IdempotencyKeyReused 422 "idempotency_key_reused" "The key was used for another request";
    Internal             500 "internal"               "Something is wrong on our side";
    Overloaded           503 "overloaded"             "Too many requests are waiting";
    Contended            503 "contended"              "Others are changing the same thing";
    Stopping             503 "stopping"               "The server is stopping";
    Unavailable          503 "unavailable"            "The database is not available";
    Timeout              503 "timeout"                "There was no answer in time";
    Interrupted          503 "interrupted"            "The work was interrupted";
    Restarting           503 "restarting"             "What has failed starts again";
    Quarantined          503 "quarantined"            "What has failed too often is out of service";
}

impl Code {
    /// The name that clients may rely on.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    #[must_use]
    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What it means, the same text each time.
    #[must_use]
    const fn title(self) -> &'static str {
        self.row().2
    }
}

/// One bad field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// The member of the body, the query parameter or the header.
    pub field: Cow<'static, str>,
    /// What it should be and what it is.
    pub detail: String,
}

/// Why a request was not done, as the client is told.
#[derive(Debug)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    detail: Cow<'static, str>,
    applied: AppliedOutcome,
    errors: Vec<FieldError>,
    members: Vec<(&'static str, Box<RawValue>)>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem of this code. One of status 5xx says that the change may have happened, until
    /// [`applied`](Self::applied) says otherwise.
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut headers = HeaderMap::new();
        if matches!(code.status(), StatusCode::SERVICE_UNAVAILABLE) || code == Code::InProgress {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let (errors, members) = (Vec::new(), Vec::new());
        let applied = AppliedOutcome::Unknown;
        Self(Box::new(Parts { code, detail: detail.into(), applied, errors, members, headers }))
    }

    /// The 400 that names every bad field.
    pub(crate) fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.field, only.detail),
            several => {
                let names: Vec<&str> = several.iter().map(|error| error.field.as_ref()).collect();
                format!("{} fields are not valid: {}", names.len(), names.join(", "))
            }
        };
        let mut problem = Self::new(Code::ValidationFailed, detail);
        problem.0.errors = errors;
        problem
    }

    /// The 400 that names one bad field.
    pub(crate) fn field(field: &'static str, detail: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.into(), detail: detail.into() }])
    }

    /// Something of ours is broken; the log says what.
    pub(crate) fn internal(applied: AppliedOutcome) -> Self {
        Self::new(Code::Internal, "the log of the server tells more under this request's id").applied(applied)
    }

    /// Says whether the change may have happened. Told to the client on every 5xx.
    #[must_use]
    pub(crate) fn applied(mut self, applied: AppliedOutcome) -> Self {
        self.0.applied = applied;
        self
    }

    /// Adds a member to the body.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: &impl Serialize) -> Self {
        if let Ok(value) = serde_json::value::to_raw_value(value) {
            self.0.members.push((name, value));
        }
        self
    }

    /// Adds a header to the answer, in place of one of that name.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The code.
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// The whole answer. `instance` is the request's id.
    pub(crate) fn response(&self, instance: &str) -> HttpResponse {
        let body = serde_json::to_string(&Document { problem: &self.0, instance }).unwrap_or_default();
        let mut response =
            HttpResponse::build(self.0.code.status()).content_type("application/problem+json").body(body);
        for (name, value) in &self.0.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.code.name(), self.0.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.code.status()
    }

    /// The status alone; the middleware puts [`Problem::response`] in its place.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.0.code.status())
    }
}

/// The body (RFC 9457, section 3), with the members that clients of the original system read.
struct Document<'a> {
    problem: &'a Parts,
    instance: &'a str,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Parts { code, detail, applied, errors, members, .. } = self.problem;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("urn:storekeeper:problem:{}", code.name()))?;
        map.serialize_entry("title", code.title())?;
        map.serialize_entry("status", &code.status().as_u16())?;
        map.serialize_entry("detail", detail)?;
        map.serialize_entry("instance", self.instance)?;
        map.serialize_entry("code", code.name())?;
        map.serialize_entry("message", detail)?;
        if code.status().is_server_error() {
            map.serialize_entry("applied", applied.name())?;
        }
        if !errors.is_empty() {
            map.serialize_entry("errors", errors)?;
        }
        for (name, value) in members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use actix_web::body::MessageBody;
    use serde_json::Value;

    use super::*;

    fn body(response: HttpResponse) -> Value {
        let bytes = response.into_body().try_into_bytes().expect("a body at hand");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn codes_are_snake_case_and_unique_and_have_an_error_status() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code:?}");
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
            assert!(!code.title().is_empty(), "{code:?}");
        }
    }

    #[test]
    fn every_member_of_the_contract_is_there() {
        let problem = Problem::new(Code::InsufficientStock, "only 3 available").with("available", &3);
        let response = problem.response("request-1");
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers().get(header::CONTENT_TYPE).expect("a type"), "application/problem+json");
        assert_eq!(
            body(response),
            serde_json::json!({
                "type": "urn:storekeeper:problem:insufficient_stock", "title": "Not enough in stock", "status": 409,
                "detail": "only 3 available", "instance": "request-1", "code": "insufficient_stock",
                "message": "only 3 available", "available": 3
            })
        );
    }

    #[test]
    fn a_503_says_when_to_ask_again_and_a_5xx_whether_it_happened() {
        for code in Code::ALL {
            let response = Problem::new(*code, "x").applied(AppliedOutcome::No).response("r");
            let (status, headers) = (response.status(), response.headers().clone());
            assert_eq!(
                status == 503 || *code == Code::InProgress,
                headers.contains_key(header::RETRY_AFTER),
                "{code:?}"
            );
            assert_eq!(status == 401, headers.contains_key(header::WWW_AUTHENTICATE), "{code:?}");
            let applied = body(response).get("applied").cloned();
            assert_eq!(applied, status.is_server_error().then(|| Value::from("no")), "{code:?}");
        }
    }

    #[test]
    fn all_bad_fields_are_named() {
        let error = |field: &'static str| FieldError { field: field.into(), detail: "is missing".to_owned() };
        let document = body(Problem::fields(vec![error("sku"), error("name")]).response("r"));
        assert_eq!(document["detail"], "2 fields are not valid: sku, name");
        assert_eq!(document["errors"][1], serde_json::json!({"field": "name", "detail": "is missing"}));
    }
}
