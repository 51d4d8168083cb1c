//! What is shown: screens, pages, time series, timelines.

pub mod brief;
pub mod contributions;
pub mod page_browser;
pub mod report_page;
pub mod saved;
pub mod series;
pub mod timeline;
