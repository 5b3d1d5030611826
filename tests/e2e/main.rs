//! The real program with all services in one process: a rehearsed crowd, recorded demand against an
//! oracle, and the page in a real browser.

mod demand;
mod instance;
mod oracle;
mod serving;

mod page;
mod rehearse;
