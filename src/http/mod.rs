//! The HTTP side: reads requests, asks the actors and the store, writes answers. No rule of the shop is here.
//!
//! [`configure`] is the route table. Each resource has a file; around them, `request` gives every request its id,
//! log line and problem body, `body`, `fields` and `rules` read what clients send, `problem` and `refusals` say what
//! went wrong, `caller` says who asks, and `idempotency` does a named request once. `app` builds [`AppState`] and
//! serves the table.

mod actors;
mod auth;
mod body;
mod caller;
mod cart;
mod connections;
mod emails;
mod fields;
mod health;
mod idempotency;
mod inventories;
mod json;
mod lists;
mod metrics;
mod orders;
pub(crate) mod passwords;
mod problem;
mod products;
mod refusals;
mod request;
mod rules;
mod secrets;
mod state;
mod tokens;
mod users;

use std::rc::Rc;
use std::str::FromStr;

use actix_web::dev::{Service, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::from_fn;
use actix_web::{App, Error, FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, web};
use futures_util::TryFutureExt;

pub use connections::Connections;
pub use health::DependencyState;
pub use secrets::{KeyError, NoRandomness};
pub use state::{AppState, Dependencies, Foundation, Settings, StartError};

use metrics::HttpMetrics;
use problem::Problem;
use state::State;

/// What a handler comes to.
type Answer = Result<HttpResponse, Problem>;

/// The application that each HTTP worker serves.
pub fn application(
    state: web::Data<AppState>,
) -> App<impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse, Error = Error, InitError = ()>> {
    App::new().configure(configure(state))
}

/// Puts all routes into an application, each at its path and under `/api`, the prefix of the original system's
/// gateway.
pub fn configure(state: web::Data<AppState>) -> impl Fn(&mut web::ServiceConfig) + Clone {
    let metrics = HttpMetrics::new(state.metrics.clone());
    move |config| {
        let metrics = Rc::clone(&metrics);
        let observe = move |request, next| request::observe(Rc::clone(&metrics), request, next);
        config.service(
            web::scope("")
                .wrap(from_fn(observe))
                .wrap_fn({
                    let connections = state.connections.clone();
                    move |request, service| {
                        connections::asked(&request);
                        let connections = connections.clone();
                        service.call(request).map_ok(move |answer| connections.see_off(answer))
                    }
                })
                .app_data(State::clone(&state))
                .service(web::scope("/api").configure(routes))
                .configure(routes),
        );
    }
}

/// The route table. A path is looked for from the top, and each pattern with a part in braces that it passes costs it,
/// so those with the most traffic come first.
fn routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/cart/add-to-cart").route(web::post().to(cart::add)))
        .service(resource("/orders/checkout").route(web::post().to(orders::checkout)))
        .service(reads(resource("/cart/me"), cart::show))
        .service(reads(resource("/products"), products::list).route(web::post().to(products::create)))
        .service(reads(resource("/products/{id}"), products::show).route(web::put().to(products::change)))
        .service(reads(resource("/inventories/{id}"), inventories::show).route(web::put().to(inventories::change)))
        .configure(cart_routes)
        .configure(order_routes)
        .configure(inventory_routes)
        .configure(auth_routes)
        .configure(user_routes)
        .configure(mail_and_health_routes)
        .configure(admin_routes);
}

fn cart_routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/cart/clear").route(web::get().to(cart::clear)))
        .service(resource("/cart").route(web::delete().to(cart::clear)))
        .service(
            resource("/cart/items/{productId}")
                .route(web::put().to(cart::set_item))
                .route(web::delete().to(cart::remove_item)),
        );
}

fn order_routes(config: &mut web::ServiceConfig) {
    config
        .service(reads(resource("/orders"), orders::list))
        .service(reads(resource("/orders/{id}"), orders::show))
        .service(resource("/orders/{id}/cancel").route(web::post().to(orders::cancel)))
        .service(resource("/orders/{id}/status").route(web::put().to(orders::set_status)));
}

fn inventory_routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/inventories").route(web::post().to(inventories::create)))
        .service(reads(resource("/inventories/{id}/details"), inventories::details));
}

fn auth_routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/auth/register").route(web::post().to(auth::register)))
        .service(resource("/auth/verify-email").route(web::post().to(auth::verify_email)))
        .service(resource("/auth/resend-verification").route(web::post().to(auth::resend_verification)))
        .service(resource("/auth/login").route(web::post().to(auth::login)))
        .service(resource("/auth/verify-token").route(web::post().to(auth::verify_token)))
        .service(resource("/auth/refresh").route(web::post().to(auth::refresh)))
        .service(resource("/auth/logout").route(web::post().to(auth::logout)))
        .service(resource("/auth/forgot-password").route(web::post().to(auth::forgot_password)))
        .service(resource("/auth/reset-password").route(web::post().to(auth::reset_password)));
}

fn user_routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/users").route(web::post().to(users::create)))
        .service(reads(resource("/users/{id}"), users::show).route(web::patch().to(users::change)))
        .service(resource("/users/{id}/role").route(web::put().to(users::set_role)))
        .service(resource("/users/{id}/status").route(web::put().to(users::set_status)));
}

fn mail_and_health_routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/emails/send").route(web::post().to(emails::send)))
        .service(reads(resource("/emails"), emails::list))
        .service(reads(resource("/health/live"), health::live))
        .service(reads(resource("/health/ready"), health::ready))
        .service(reads(resource("/health"), health::ready))
        .service(reads(resource("/metrics"), metrics::show));
}

/// The resource at a path; requests to it are counted under that.
fn resource(pattern: &'static str) -> Resource {
    web::resource(pattern).guard(metrics::noting(pattern))
}

fn admin_routes(config: &mut web::ServiceConfig) {
    config
        .service(reads(web::resource("/admin/actors"), actors::list))
        .service(reads(web::resource("/admin/actors/{kind}/{id}"), actors::show))
        .service(web::resource("/admin/actors/{kind}/{id}/restart").route(web::post().to(actors::restart)));
}

/// A resource that is read by this handler: GET, and HEAD, whose body is left out on the way.
fn reads<F, Args>(resource: Resource, handler: F) -> Resource
where
    F: Handler<Args> + Copy,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    resource.route(web::get().to(handler)).route(web::head().to(handler))
}

/// An identifier in the path; `None` when it is none of ours.
fn path_id<T: FromStr>(request: &HttpRequest, name: &str) -> Option<T> {
    request.match_info().get(name)?.parse().ok()
}

/// Where a client finds something at `path`, under the prefix that it used.
fn location(request: &HttpRequest, path: &str) -> String {
    let whole = request.path();
    let prefix = &whole[..whole.len() - idempotency::path_without_prefix(whole).len()];
    format!("{prefix}{path}")
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_location_is_under_the_prefix_that_was_used() {
        let of = |path: &str| location(&TestRequest::with_uri(path).to_http_request(), "/orders/1");
        assert_eq!(of("/api/orders/checkout"), "/api/orders/1");
        assert_eq!(of("/orders/checkout"), "/orders/1");
    }
}
