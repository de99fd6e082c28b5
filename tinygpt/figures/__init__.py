"""Records to pictures: matplotlib's object API only, never pyplot. Call everything here inside `style.style()`."""
