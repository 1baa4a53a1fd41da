Feature: Support and administration
  Each role may do what its work needs and no more, and what was done is kept.

  Scenario: Support finds the order of a customer
    Given Ada is a customer
    And Sue works in support
    And there are 10 lamps at 12.50 EUR each
    And Ada has ordered 1 lamps
    Then Sue finds the order among those of Ada

  Scenario: A customer does not see the orders of everybody
    Given Ada is a customer
    When Ada asks for the orders of everybody
    Then Ada is told "This needs a permission that you do not have"

  Scenario: Support changes no prices
    Given Sue works in support
    And there are 10 lamps at 12.50 EUR each
    When Sue changes the price of lamps to 1.00 EUR
    Then Sue is told "This needs a permission that you do not have"

  Scenario: Who is disabled is out at once, and does not come back
    Given Ada is a customer
    And Max is an administrator
    When Max disables Ada
    Then Ada is not logged in any more
    When Ada logs in
    Then Ada is told "The password or the email address is wrong"

  Scenario: A customer becomes a member of support
    Given Ada is a customer
    And Max is an administrator
    When Ada asks for the orders of everybody
    Then Ada is told "This needs a permission that you do not have"
    When Max makes Ada a member of support
    And Ada logs in
    And Ada asks for the orders of everybody
    Then Ada gets them

  Scenario: Of two who change the same, the second is told
    Given Max is an administrator
    And Eve is an administrator
    And there are 10 lamps at 12.50 EUR each
    And Max and Eve have both looked at lamps
    When Max changes what was looked at to 13.00 EUR
    And Eve changes what was looked at to 14.00 EUR
    Then Eve is told "The resource has changed since it was read"
    And lamps cost 13.00 EUR

  Scenario: Who has disabled somebody is on record
    Given Ada is a customer
    And Max is an administrator
    When Max disables Ada
    Then it is on record that Max has changed the status of Ada from active to disabled
