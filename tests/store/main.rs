//! The contract of a store, as every database has to keep it.
//!
//! Each case takes a shop of its own with a new, empty database; [`contract!`] runs all cases over one kind of
//! database. What only one kind can show has a module of its own.

#![expect(clippy::expect_used, reason = "a test that can not go on says why")]

mod accounts;
mod carts;
mod catalogue;
mod check;
mod inventories;
mod journal;
mod mail;
mod migrations;
mod orders;
mod outbox;
mod postgres;
#[path = "../support/postgres.rs"]
mod server;
mod shop;
mod sqlite;
#[path = "../support/unprivileged.rs"]
mod unprivileged;
mod upkeep;

/// Runs every case over the database that `$open` makes: an async function from a clock to a `shop::Opened`.
macro_rules! contract {
    ($open:path) => {
        contract! { $open;
            accounts: an_account_is_made_whole_or_not_at_all, accounts_are_found_by_address_and_id,
                the_right_code_works_once, a_code_dies_of_wrong_tries_and_of_age, a_new_code_replaces_the_old_one,
                a_new_password_ends_the_refresh_tokens, a_refresh_token_is_spent_for_its_successor,
                a_refresh_token_used_twice_ends_its_family, an_ended_or_old_refresh_token_is_refused,
                the_last_active_admin_stays, a_suspended_user_loses_the_refresh_tokens,
                a_profile_changes_what_it_is_told_to, the_first_secret_stays, a_login_is_kept;
            carts: a_cart_shows_its_open_lines, an_ended_cart_shows_what_ended_with_it,
                carts_are_due_when_their_time_is_over, many_carts_are_read_at_once, open_carts_are_read_page_by_page;
            catalogue: a_product_comes_back_as_it_was_kept, a_product_and_its_stock_are_made_whole_or_not_at_all,
                those_of_many_products_that_there_are, a_patch_changes_what_it_is_told_to,
                a_patch_of_a_stale_version_changes_nothing, products_are_sorted_and_paged,
                products_are_found_by_part_of_name_or_sku, a_cursor_fits_its_own_list_only;
            check: a_balance_out_of_range_is_found, a_row_out_of_range_is_found, more_demand_than_supply_is_found, a_balance_beside_its_ledger_is_found, a_wrong_last_number_is_found, a_gap_in_the_numbers_is_found, a_broken_chain_is_found, a_wrong_pointer_is_found, a_row_that_does_not_do_what_it_says_is_found, a_wrong_sum_held_is_found, an_open_hold_of_an_ended_cart_is_found, a_hold_that_did_not_end_as_the_ledger_says_is_found, a_second_release_is_found, an_ordered_cart_without_its_order_is_found, a_wrong_total_is_found, a_sale_that_is_not_in_the_ledger_is_found, a_cancelled_order_that_is_not_back_is_found, a_missing_change_is_found, a_misnumbered_change_is_found, a_change_to_another_status_is_found, a_change_from_another_status_is_found, a_change_of_no_order_is_found, removed_changes_are_not_missed, a_gap_in_what_is_left_of_an_order_is_found,
                a_last_change_that_is_not_told_is_found, an_empty_outbox_hides_nothing, sound_books_pass;
            inventories: a_product_has_one_inventory, stock_of_no_product_is_refused,
                a_history_is_paged_from_the_newest, a_history_names_cart_and_order;
            journal: a_committed_batch_is_known_when_it_comes_again, a_batch_that_was_not_committed_can_come_again,
                what_rests_on_a_product_that_has_changed_is_refused,
                what_is_written_at_once_is_each_as_it_was_told,
                what_has_little_in_common_is_written_at_once;
            mail: mails_are_listed_newest_first, a_due_mail_is_claimed_by_one, a_mail_is_tried_until_it_is_given_up,
            what_is_handed_over_is_unanswered_until_it_is_answered;
            orders: an_order_comes_back_as_it_was_placed, orders_are_listed_newest_first,
                pending_orders_are_found_by_age, an_answer_is_remembered_for_its_time;
            outbox: changes_are_claimed_order_by_order, an_order_with_a_claimed_change_is_left_out,
                a_claim_given_back_ends_at_once,
                published_changes_are_gone, a_mail_is_kept_once_a_message, a_dead_letter_is_kept;
            upkeep: each_thing_is_forgotten_after_its_time, many_things_are_forgotten_few_at_a_time,
                a_change_that_is_not_told_stays_and_all_behind_it,
                a_message_is_recognised_as_long_as_its_event_may_come_again,
                the_books_are_right_with_orders_of_all_ages, what_is_in_hand_is_counted,
                connections_are_counted, a_closed_store_refuses;
        }
    };
    ($open:path; $($area:ident: $($case:ident),+;)+) => {
        $(mod $area {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let shop = crate::shop::Shop::open($open).await;
                crate::$area::$case(&shop).await;
                shop.close().await;
            })+
        })+
    };
}

mod on_sqlite {
    contract!(crate::sqlite::open);
}

mod on_postgres {
    contract!(crate::postgres::open);
}
