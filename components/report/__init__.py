"""What people look at: the HTML report, Markdown, leaderboards."""
