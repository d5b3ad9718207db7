//! The texts of the mails. Each is written twice, as plain text and as HTML, from the files in `templates/`, which
//! are part of the program.
//!
//! What people typed (names, addresses, product names) can not break out of its place: HTML is escaped, and every
//! value is one line without control characters before it gets into a subject or a text.

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

use crate::domain::order::OrderStatus;

use super::documents::OrderDocument;

/// Characters of a subject at most.
const SUBJECT_MAX: usize = 200;

/// A template is wrong, or lacks a value. A fault of the program, not of what it was given.
#[derive(Debug, thiserror::Error)]
#[error("a mail could not be written: {0}")]
pub struct TemplateError(#[from] minijinja::Error);

/// A written mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailText {
    /// One line, no control characters.
    pub subject: String,
    /// As plain text.
    pub text: String,
    /// As HTML.
    pub html: String,
}

/// The texts of all mails that the shop writes.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// Reads the texts.
    ///
    /// # Errors
    /// [`TemplateError`] when one of them is no template.
    pub fn new() -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(
            |name| {
                if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
            },
        );
        for (name, source) in [
            ("layout.html", include_str!("../../templates/layout.html")),
            ("order.html", include_str!("../../templates/order.html")),
            ("order.txt", include_str!("../../templates/order.txt")),
            ("verification.html", include_str!("../../templates/verification.html")),
            ("verification.txt", include_str!("../../templates/verification.txt")),
            ("password_reset.html", include_str!("../../templates/password_reset.html")),
            ("password_reset.txt", include_str!("../../templates/password_reset.txt")),
            ("order_confirmation.html", include_str!("../../templates/order_confirmation.html")),
            ("order_confirmation.txt", include_str!("../../templates/order_confirmation.txt")),
            ("order_status.html", include_str!("../../templates/order_status.html")),
            ("order_status.txt", include_str!("../../templates/order_status.txt")),
        ] {
            environment.add_template(name, source)?;
        }
        Ok(Self { environment })
    }

    /// The code that confirms an address.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn verification(&self, name: &str, code: &str) -> Result<MailText, TemplateError> {
        self.write("verification", "Confirm your address", context!(name => line(name), code => line(code)))
    }

    /// The code that lets a new password be set.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn password_reset(&self, name: &str, code: &str) -> Result<MailText, TemplateError> {
        self.write("password_reset", "Set a new password", context!(name => line(name), code => line(code)))
    }

    /// An order has been placed.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn order_confirmation(&self, order: &OrderDocument) -> Result<MailText, TemplateError> {
        self.write("order_confirmation", &format!("Your order {}", order.id), order_values(order))
    }

    /// The status of an order has changed.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn order_status(&self, order: &OrderDocument) -> Result<MailText, TemplateError> {
        let news = news_of(order.status);
        self.write("order_status", &format!("Your order {} {news}", order.id), order_values(order))
    }

    fn write(&self, template: &str, subject: &str, values: Value) -> Result<MailText, TemplateError> {
        let subject = line(subject).chars().take(SUBJECT_MAX).collect();
        let render = |kind: &str| self.environment.get_template(&format!("{template}.{kind}"))?.render(&values);
        Ok(MailText { subject, text: render("txt")?, html: render("html")? })
    }
}

/// What has become of an order, as its buyer is told.
fn news_of(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Pending => "has been placed",
        OrderStatus::Confirmed => "is confirmed",
        OrderStatus::Shipped => "is on its way",
        OrderStatus::Delivered => "has been delivered",
        OrderStatus::Cancelled => "has been cancelled",
    }
}

fn order_values(order: &OrderDocument) -> Value {
    let items: Vec<Value> = order
        .order_items
        .iter()
        .map(|item| {
            context!(
                name => line(&item.product_name),
                sku => line(&item.sku),
                price => item.price.as_str(),
                quantity => item.quantity,
                total => item.total.as_str(),
            )
        })
        .collect();
    context!(
        id => order.id.to_string(),
        name => line(&order.user_name),
        news => news_of(order.status),
        currency => line(&order.currency),
        subtotal => order.subtotal.as_str(),
        tax => order.tax.as_str(),
        grand_total => order.grand_total.as_str(),
        address => address_lines(order),
        payment_reference => order.payment_reference.as_deref().map(line),
        items => items,
    )
}

/// The shipping address as lines: those of a string, or the members of an object.
fn address_lines(order: &OrderDocument) -> Vec<String> {
    let Some(address) = &order.shipping_address else { return Vec::new() };
    match serde_json::from_str(address.get()) {
        Ok(serde_json::Value::String(text)) => text.lines().map(line).filter(|line| !line.is_empty()).collect(),
        Ok(serde_json::Value::Object(members)) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| match value.as_str() {
                Some(text) => line(&format!("{name}: {text}")),
                None => line(&format!("{name}: {value}")),
            })
            .collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// The text as one line: whatever ends a line or controls a terminal or a mail header becomes a space.
fn line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.split(|c: char| breaks(c) || c == ' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// An order for the tests of this module and its neighbours.
#[cfg(test)]
pub(crate) mod example {
    use uuid::Uuid;

    use crate::domain::ids::{CartKey, CartSessionId, InventoryId, OrderId, ProductId, UserId};
    use crate::domain::money::{Currency, Money};
    use crate::domain::order::{OrderLine, OrderStatus, Totals};
    use crate::domain::timestamp::Timestamp;
    use crate::persistence::records::{Order, OrderedLine};

    /// Two of one thing for 19.80 USD and 1.98 tax, placed on 2026-11-22.
    pub(crate) fn order() -> Order {
        let line = OrderLine {
            product: ProductId(Uuid::from_u128(3)),
            name: "Tea & <Biscuits>".to_owned(),
            sku: "TEA-1".to_owned(),
            price: Money(990),
            quantity: 2,
            total: Money(1980),
        };
        Order {
            id: OrderId(Uuid::from_u128(1)),
            cart: CartSessionId { key: CartKey(Uuid::from_u128(4)), secret: [7; 16] },
            user: UserId(Uuid::from_u128(2)),
            user_name: "Ann <i>Lee</i>\r\nBcc: all@example.org".to_owned(),
            user_email: "ann@example.org".to_owned(),
            currency: Currency::from_code("USD").expect("a currency"),
            totals: Totals { subtotal: Money(1980), tax: Money(198), grand_total: Money(2178) },
            status: OrderStatus::Pending,
            sequence: 1,
            shipping_address: Some(r#"{"street": "1 High Street <b>", "city": "Springfield"}"#.to_owned()),
            payment_reference: None,
            lines: vec![OrderedLine { line, inventory: InventoryId(Uuid::from_u128(5)) }],
            created_at: Timestamp(1_795_339_800_000_000),
            updated_at: Timestamp(1_795_339_800_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::example::order;
    use super::*;
    use crate::persistence::records::Order;

    fn templates() -> Templates {
        Templates::new().expect("templates")
    }

    #[test]
    fn codes_are_in_both_texts() {
        let templates = templates();
        for mail in [templates.verification("Ann", "493-817"), templates.password_reset("Ann", "493-817")] {
            let mail = mail.expect("a mail");
            assert!(mail.text.contains("493-817") && mail.html.contains("493-817"), "{mail:?}");
            assert!(mail.text.starts_with("Hello Ann,"), "{}", mail.text);
        }
    }

    #[test]
    fn html_is_escaped_and_plain_text_is_not() {
        let mail = templates().order_confirmation(&OrderDocument::of(&order())).expect("a mail");
        assert!(mail.html.contains("Tea &amp; &lt;Biscuits&gt;"), "{}", mail.html);
        assert!(mail.html.contains("1 High Street &lt;b&gt;"), "{}", mail.html);
        assert!(!mail.html.contains("<i>Lee"), "{}", mail.html);
        assert!(mail.text.contains("2 x Tea & <Biscuits> (TEA-1) at 9.90: 19.80 USD"), "{}", mail.text);
        assert!(mail.text.contains("street: 1 High Street <b>"), "{}", mail.text);
    }

    #[test]
    fn an_order_shows_what_it_comes_to() {
        let mail = templates().order_confirmation(&OrderDocument::of(&order())).expect("a mail");
        for part in ["19.80", "1.98", "21.78 USD", &order().id.to_string()] {
            assert!(mail.text.contains(part), "{part} in {}", mail.text);
            assert!(mail.html.contains(part), "{part} in {}", mail.html);
        }
        assert_eq!(mail.subject, format!("Your order {}", order().id));
    }

    #[test]
    fn every_status_has_its_own_news() {
        let mut subjects = std::collections::BTreeSet::new();
        for (status, _) in OrderStatus::NAMES {
            let order = Order { status, payment_reference: Some("pay-77".to_owned()), ..order() };
            let mail = templates().order_status(&OrderDocument::of(&order)).expect("a mail");
            assert!(mail.text.contains(news_of(status)) && mail.html.contains(news_of(status)), "{mail:?}");
            assert!(mail.text.contains("pay-77"), "{}", mail.text);
            subjects.insert(mail.subject);
        }
        assert_eq!(subjects.len(), OrderStatus::NAMES.len());
    }

    #[test]
    fn nothing_typed_begins_a_line() {
        let mail = templates().verification("Ann\r\nBcc: all@example.org\u{2028}x\u{1b}[2J", "1").expect("a mail");
        assert!(mail.text.contains("Hello Ann Bcc: all@example.org x [2J,"), "{}", mail.text);
        let mail = templates().order_confirmation(&OrderDocument::of(&order())).expect("a mail");
        assert!(mail.text.lines().all(|line| !line.starts_with("Bcc:")), "{}", mail.text);
    }

    #[test]
    fn a_subject_is_one_short_line() {
        let templates = templates();
        let subject = format!("a\r\nBcc: b\0c\u{85}d{}", "e".repeat(500));
        let mail = templates.write("verification", &subject, context!(name => "n", code => "c")).expect("a mail");
        assert!(mail.subject.starts_with("a Bcc: b c d"), "{:?}", mail.subject);
        assert!(mail.subject.chars().all(|c| !c.is_control()));
        assert_eq!(mail.subject.chars().count(), SUBJECT_MAX);
    }
}
