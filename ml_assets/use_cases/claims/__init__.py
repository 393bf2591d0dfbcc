"""Will this applicant claim? About 1,200 applications a day, about 16 % of which do."""
